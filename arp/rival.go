package arp

import (
	"net"
	"net/netip"
	"time"
)

// Rival is what a Watch tells of another machine that claims a VIP held here. It tells
// the first claim at once. It also tells the end, with the number of claims.
type Rival struct {
	VIP    netip.Addr
	MAC    net.HardwareAddr
	Node   string // the cluster's node last seen with this MAC; mostly ""
	At     time.Duration
	Over   bool // silent again
	Claims int  // with Over: since the first
}

const (
	// defendEvery is the shortest time between two answers to claims (RFC 5227 2.4 c: two
	// sides that defend more often fight for ever). It also applies to the announcement
	// after a rival seems to be over, and to alarms.
	defendEvery = 10 * time.Second
	// rivalQuiet without a claim means that the rival may be over, and the neighbours are
	// told again. For a rival that claims less often the wait is longer: otherwise each
	// of its claims would cause an announcement.
	rivalQuiet = 250 * time.Millisecond
	rivalOver  = 3 * time.Second
	// rivalSeldom is how far apart two claims of one rival may be.
	rivalSeldom = 2 * defendEvery
	// straggler is how long after Hold a peer's frame does not count: the last holder may
	// have sent it before it let go.
	straggler = 100 * time.Millisecond
)

// claims is what is known of a VIP's rival.
type claims struct {
	mac      hardwareAddr
	active   bool
	open     bool // its start was told, its end not yet
	count    int
	last     time.Duration // 0: never
	gap      time.Duration // between the last two claims
	defended time.Duration // 0: never
	turnAt   time.Duration // when to tell the router; 0: not due
	healAt   time.Duration // when to tell everybody; 0: not due
	healed   time.Duration // 0: never
	told     time.Duration // 0: never
}

// claimed takes another machine's claim that a VIP is at h.mac.
func (v *watched) claimed(w *Watch, now time.Duration, h heard) {
	if !v.held || v.alone || w.isOwn(now, h.mac) {
		return
	}
	if v.sought != 0 && now < v.sought+time.Second && w.isGateway(h) {
		return // asked who has the VIP, a gateway may answer for every address
	}
	_, peer := w.peerMACs[h.mac]
	if peer && now-v.since < straggler {
		return
	}
	w.stats.Claims++
	r := &v.rival
	if !r.active {
		r.active, r.count = true, 0
		if !v.proving {
			v.begin(now) // does the router believe the rival?
			v.nextPing = now + firstPauses[0]
		}
	}
	r.heard(now)
	// Neither a new MAC each time nor a rival that comes and goes may fill the journal.
	other := r.mac != h.mac
	r.mac = h.mac
	if (other || !r.open) && due(now, r.told) {
		v.alarm(w, now)
	}
	if due(now, r.defended) {
		r.defended = now
		v.defend(w)
	}
	w.poke()
}

// heard counts one more claim and plans the reaction. The router is told soon after each
// pause. Everybody is told when the claims seem to have ceased, judged by their pace, and
// at most every defendEvery because of a rival that comes and goes.
func (r *claims) heard(now time.Duration) {
	r.gap = 0
	if r.last != 0 && now-r.last < rivalSeldom {
		r.gap = now - r.last
	}
	r.last = now
	r.count++
	r.turnAt = now + rivalQuiet
	r.healAt = now + min(max(rivalQuiet, r.gap+r.gap/2), defendEvery)
	if r.healed != 0 {
		r.healAt = max(r.healAt, r.healed+defendEvery)
	}
}

// due reports whether defendEvery has passed since last, or last is 0 (never).
func due(now, last time.Duration) bool { return last == 0 || now-last >= defendEvery }

func (v *watched) rivalTick(w *Watch, now time.Duration) (next time.Duration) {
	r := &v.rival
	next = now + time.Minute
	switch {
	case r.healAt != 0 && now >= r.healAt:
		r.healAt, r.turnAt, r.healed, r.defended = 0, 0, now, now
		v.defend(w)
		next = v.askAnew(now)
	case r.turnAt != 0 && now >= r.turnAt:
		if r.turnAt = 0; !v.turnBack(w) {
			r.turnAt = now + askFirst
		} else if !v.proving { // keep the failed tries: the router may have stopped following
			next = v.askAnew(now)
		}
	}
	for _, at := range []time.Duration{r.turnAt, r.healAt} {
		if at != 0 {
			next = min(next, at)
		}
	}
	if r.active {
		next = min(next, v.tellEnd(w, now))
	}
	return next
}

// tellEnd tells of a rival's end. It also tells of a rival that came back too soon to be
// told at once.
func (v *watched) tellEnd(w *Watch, now time.Duration) (next time.Duration) {
	r := &v.rival
	if !r.open && due(now, r.told) {
		v.alarm(w, now)
	}
	over := r.last + min(max(rivalOver, 3*r.gap), rivalSeldom)
	if !r.open {
		over = max(over, r.told+defendEvery)
	}
	if now < over {
		if !r.open {
			return min(over, r.told+defendEvery)
		}
		return over
	}
	if r.open {
		v.tellRival(w, Rival{At: now, Over: true, Claims: r.count})
	}
	r.active, r.open = false, false
	return now + time.Minute
}

// askAnew begins a proof, because the router may believe the rival.
func (v *watched) askAnew(now time.Duration) (next time.Duration) {
	v.begin(now)
	v.nextPing = now + firstPauses[0]
	return v.nextPing
}

// turnBack tells the router alone where the VIP is, so the rival hears nothing that it
// could answer. A Linux router takes an announcement at any time, but a question only
// when its entry is a second old; other routers learn from questions alone. If too many
// frames have left in this second, turnBack returns false and has to be tried again.
func (v *watched) turnBack(w *Watch) (told bool) {
	if v.Silent || !v.gw.resolved || !w.o.Announcer.may(v.VIP) {
		return true // nothing to try again
	}
	if v.VIP.Is4() {
		if !w.announceTo(v.gw, v.VIP) {
			return false
		}
		w.stats.Asked++
	}
	if told = w.ask(v.gw, v.VIP, true, 0); told {
		w.stats.Asked++
	}
	return told || v.VIP.Is4()
}

// announceTo sends the request form of an announcement to a gateway alone.
func (w *Watch) announceTo(g *gateway, vip netip.Addr) bool {
	if _, ok := w.o.Announcer.limit.take(g.key.ifname, 1, 0); !ok {
		return false
	}
	return w.send(g, func(mac hardwareAddr) ([]byte, error) {
		f := announcement(operationRequest, mac, vip)
		copy(f[:], g.mac[:])
		return f[:], nil
	})
}

func (v *watched) alarm(w *Watch, now time.Duration) {
	v.rival.told, v.rival.open = now, true
	v.tellRival(w, Rival{At: now})
}

func (v *watched) defend(w *Watch) {
	if v.Silent {
		return
	}
	w.stats.Defences++
	w.o.Announcer.Repeat(v.VIP)
}

func (v *watched) tellRival(w *Watch, r Rival) {
	r.VIP, r.MAC = v.VIP, net.HardwareAddr(append([]byte(nil), v.rival.mac[:]...))
	if ip, peer := w.peerMACs[v.rival.mac]; peer {
		r.Node = w.o.Peers[ip]
	}
	if w.o.OnRival != nil {
		w.told = append(w.told, func() { w.o.OnRival(r) })
	}
}
