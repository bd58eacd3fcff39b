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
	// defence more often than this makes two sides fight for ever).
	defendEvery = 10 * time.Second
	// rivalQuiet without a claim: it may be over, and the neighbours are put
	// right. A rival that speaks more seldom is waited for longer, or each of
	// its claims would draw an announcement.
	rivalQuiet = 250 * time.Millisecond
	rivalOver  = 3 * time.Second
	// straggler: a frame that the last holder sent before it let go may still be
	// on its way when we hold.
	straggler = 100 * time.Millisecond
)

// claims is what is known of a VIP's rival.
type claims struct {
	mac      hardwareAddr
	active   bool
	count    int
	last     time.Duration
	gap      time.Duration // between the last two
	defended time.Duration // 0: never
	healAt   time.Duration // 0: the neighbours have been put right
	told     time.Duration
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
	fresh := !r.active
	if fresh {
		*r = claims{active: true, defended: r.defended, told: r.told}
	} else {
		r.gap = now - r.last
	}
	other := r.mac != h.mac
	r.mac, r.last = h.mac, now
	r.count++
	r.healAt = now + min(max(rivalQuiet, r.gap+r.gap/2), defendEvery)
	// Another MAC each time must not fill the journal.
	if fresh || other && now-r.told >= defendEvery {
		r.told = now
		v.tellRival(w, Rival{At: now})
	}
	if fresh && !v.proving {
		v.begin(now) // does the router believe it?
		v.nextPing = now + firstPauses[0]
	}
	if r.defended == 0 || now-r.defended >= defendEvery {
		r.defended = now
		v.defend(w)
	}
	w.poke()
}

func (v *watched) rivalTick(w *Watch, now time.Duration) (next time.Duration) {
	r := &v.rival
	next = now + time.Minute
	if r.healAt != 0 && now >= r.healAt {
		r.healAt = 0
		v.defend(w)
		v.begin(now) // the router may believe the rival
		v.nextPing = now + firstPauses[0]
		next = v.nextPing
	}
	if r.healAt != 0 {
		next = min(next, r.healAt)
	}
	over := r.last + max(rivalOver, 3*r.gap)
	if r.active && now >= over {
		v.tellRival(w, Rival{At: now, Over: true, Claims: r.count})
		r.active = false
	}
	if r.active {
		next = min(next, over)
	}
	return next
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
