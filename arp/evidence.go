package arp

import (
	"net/netip"
	"slices"
	"time"
)

// What a node without a majority has to know of a VIP (design §4.6): does its
// gateway answer, does the router's table point here, does anybody answer for
// it. The watch for rivals tells what it heard; the rest is asked.

// Evidence is an answer, or the word that a question has left.
type Evidence struct {
	VIP  netip.Addr
	Kind Question
	Sent time.Duration // when the question left, boot clock
}

// Question is whom to ask about a VIP.
type Question uint8

// The questions. The first two are pings, answered when they come as Evidence.
// The third is answered by a Sign; that it has left comes as Evidence, for a
// question that was held back proves nothing.
const (
	AskGateway Question = iota // the VIP's gateway, from our own address
	AskRouter                  // the same from the VIP, which has to be held
	AskOwner                   // everybody, from our own address
)

// Sign is another machine's word about a VIP, held here or not: it claims to
// have it, or asks who does.
type Sign struct {
	VIP  netip.Addr
	Node string // the cluster's, by its MAC or address, as far as known
	Asks bool
}

// asking is a question that waits for the Watch's own goroutine.
type asking struct {
	vip  netip.Addr
	what Question
	tell bool
}

// Ask asks; tell has the router be told first, of AskRouter, where the VIP is.
// It never waits. Where nothing is known to ask, nothing is asked.
func (w *Watch) Ask(vip netip.Addr, what Question, tell bool) {
	w.askMu.Lock()
	w.asked = append(w.asked, asking{vip, what, tell})
	w.askMu.Unlock()
	w.poke()
}

// askTick asks what waits to be asked: each gateway once for all its VIPs.
func (w *Watch) askTick(now time.Duration) {
	w.askMu.Lock()
	asked := w.asked
	w.asked = nil
	w.askMu.Unlock()
	for _, a := range asked {
		v := w.vips[a.vip]
		switch {
		case v == nil:
		case a.what == AskGateway:
			if !slices.Contains(v.gw.askers, v) {
				v.gw.askers = append(v.gw.askers, v)
			}
		case a.what == AskOwner:
			w.askOwner(now, v)
		case v.held:
			if a.tell && !v.Silent {
				v.urgeAlone(w)
			}
			if v.gw.resolved {
				w.ping(now, v.gw, v, v)
			}
		}
	}
	for _, g := range w.gateways {
		if len(g.askers) > 0 && g.own.IsValid() && g.resolved {
			w.ping(now, g, nil, g.askers...)
		}
		g.askers = nil
	}
}

// urgeAlone tells the router, and everybody, where a survivor's VIP is.
func (v *watched) urgeAlone(w *Watch) {
	if v.gw.resolved && w.o.Announcer.may(v.VIP) && w.ask(v.gw, v.VIP, true, 0) {
		w.stats.Asked++
	}
	_ = w.o.Announcer.send(v.VIP, v.Interface, false) // where it is held back, the router has heard the question
}

// askOwner's sender is our own address: only an announcement would speak for
// the VIP.
func (w *Watch) askOwner(now time.Duration, v *watched) {
	if w.askAll(v, 1) {
		w.evidence(Evidence{v.VIP, AskOwner, now})
	}
}

// seekOwner asks everybody for a VIP that is held here and that the router looks for
// elsewhere: a machine that has it too, and speaks of it only when asked, answers us
// then, and is a rival.
func (w *Watch) seekOwner(v *watched) { w.askAll(v, 1) }

func (w *Watch) askAll(v *watched, spare int) bool {
	if !v.gw.own.IsValid() || !w.question(v.gw, v.gw.own, v.VIP, nil, spare) {
		return false
	}
	w.stats.Owners++
	return true
}

// answered tells of an answer to a ping.
func (w *Watch) answered(p *ping) {
	kind := AskGateway
	if p.vip != nil {
		kind = AskRouter
	}
	for _, v := range p.askers {
		w.evidence(Evidence{v.VIP, kind, p.sent})
	}
}

func (w *Watch) evidence(e Evidence) {
	if w.o.OnEvidence != nil {
		w.told = append(w.told, func() { w.o.OnEvidence(e) })
	}
}

// hearSign takes what another machine claims or asks. A gateway does not count:
// it may answer for all.
func (w *Watch) hearSign(now time.Duration, h heard) {
	if w.o.OnSign == nil {
		return
	}
	s := Sign{VIP: h.ip, Node: w.o.Peers[w.peerMACs[h.mac]]}
	if w.vips[s.VIP] == nil {
		if s = (Sign{h.asks, w.o.Peers[h.ip], true}); w.vips[s.VIP] == nil || s.Node == "" {
			return // phones and routers ask all day
		}
	}
	if w.isOwn(now, h.mac) || w.isGateway(h) {
		return
	}
	w.told = append(w.told, func() { w.o.OnSign(s) })
}

func (w *Watch) isGateway(h heard) bool {
	for _, g := range w.gateways {
		if g.index == h.index && g.voice(h.mac) {
			return true
		}
	}
	return false
}
