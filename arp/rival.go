package arp

import (
	"net"
	"net/netip"
	"time"
)

// Rival is what a Watch tells of another machine that claims a VIP held here.
// The first claim is told at once; the end too, with how many there were.
type Rival struct {
	VIP    netip.Addr
	MAC    net.HardwareAddr
	Node   string // the cluster's node that was last seen with this MAC; mostly ""
	At     time.Duration
	Over   bool // silent again
	Claims int  // Over: since the first
}

const (
	// defendEvery is how soon a claim is answered again (RFC 5227 2.4 c: a
	// defence more often than this makes two sides fight for ever). The same
	// holds for what is announced once a rival seems to be over, and for alarms.
	defendEvery = 10 * time.Second
	// rivalQuiet without a claim: it may be over, and the neighbours are put
	// right. A rival that speaks more seldom is waited for longer, or each of
	// its claims would draw an announcement.
	rivalQuiet = 250 * time.Millisecond
	rivalOver  = 3 * time.Second
	// rivalSeldom is how far apart claims may be to be one rival's.
	rivalSeldom = 2 * defendEvery
	// straggler: a frame that the last holder sent before it let go may still be
	// on its way when we hold.
	straggler = 100 * time.Millisecond
)

// claims is what is known of a VIP's rival.
type claims struct {
	mac      hardwareAddr
	active   bool
	open     bool // told, and its end not yet
	count    int
	last     time.Duration // 0: never
	gap      time.Duration // between the last two
	defended time.Duration // 0: never
	turnAt   time.Duration // 0: the router has been turned back
	healAt   time.Duration // 0: the neighbours have been put right
	healed   time.Duration // 0: never
	told     time.Duration // 0: never
}

// claimed takes somebody's word that a VIP is at h.mac.
func (v *watched) claimed(w *Watch, now time.Duration, h heard) {
	if !v.held || v.alone || w.isOwn(now, h.mac) {
		return
	}
	if v.sought != 0 && now < v.sought+time.Second && w.isGateway(h) {
		return // asked, it may answer for all
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
			v.begin(now) // does the router believe it?
			v.nextPing = now + firstPauses[0]
		}
	}
	r.heard(now)
	// Another MAC each time must not fill the journal, nor one rival that comes
	// and goes.
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

// heard plans what becomes of one more claim. The router is turned back soon after
// each pause; everybody is told again when the claims have ceased, as far as their
// pace shows that, but not every few seconds because of one that comes and goes.
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

// due says whether what was last done then may be done again.
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
		} else if !v.proving { // else the tries that failed count on: the router may follow no more
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

// tellEnd tells of a rival's end, and of one that came back too soon to be told
// of at once.
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

// askAnew begins a proof: the router may believe the rival.
func (v *watched) askAnew(now time.Duration) (next time.Duration) {
	v.begin(now)
	v.nextPing = now + firstPauses[0]
	return v.nextPing
}

// turnBack tells the router alone where the VIP is: the rival hears nothing of it
// that it could answer. A Linux router takes an announcement at any time and a
// question only when its entry is a second old; others learn from questions alone.
// Where too many frames have left in this second it has to be tried again.
func (v *watched) turnBack(w *Watch) (told bool) {
	if v.Silent || !v.gw.resolved || !w.o.Announcer.may(v.VIP) {
		return true // nothing to wait for
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
