package arp

import (
	"net/netip"
	"slices"
	"time"
)

// What a node without a majority has to know of a VIP (design §4.6): does its gateway
// answer, does the router's table point here, does anybody answer for the VIP. The watch
// for rivals tells what it heard; Ask asks for the rest.

// Evidence is an answer, or for AskOwner the report that the question has left.
type Evidence struct {
	VIP  netip.Addr
	Kind Question
	Sent time.Duration // when the question left, boot clock
}

// Question says whom to ask about a VIP.
type Question uint8

// The questions. The first two are pings; their answers come as Evidence. The answer to
// AskOwner comes as a Sign. That AskOwner's question has left comes as Evidence, because
// a question that was held back proves nothing.
const (
	AskGateway Question = iota // ping the VIP's gateway from our own address
	AskRouter                  // ping it from the VIP, which has to be held
	AskOwner                   // ask everybody from our own address
)

// Sign is what another machine says about a VIP, held here or not: it claims to have the
// VIP, or asks who has it.
type Sign struct {
	VIP  netip.Addr
	Node string // the cluster's node, by its MAC or address, as far as known
	Asks bool
}

// asking is a question that waits for the Watch's own goroutine.
type asking struct {
	vip  netip.Addr
	what Question
	tell bool
}

// Ask asks the question what about vip. With tell, AskRouter first tells the router where
// the VIP is. Ask never waits. Where no address, MAC or gateway to ask is known, it asks
// nothing.
func (w *Watch) Ask(vip netip.Addr, what Question, tell bool) {
	w.askMu.Lock()
	w.asked = append(w.asked, asking{vip, what, tell})
	w.askMu.Unlock()
	w.poke()
}

// askTick sends the questions that wait. It pings each gateway once for all its VIPs.
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

// urgeAlone tells the router and everybody where a survivor's VIP is.
func (v *watched) urgeAlone(w *Watch) {
	if v.gw.resolved && w.o.Announcer.may(v.VIP) && w.ask(v.gw, v.VIP, true, 0) {
		w.stats.Asked++
	}
	_ = w.o.Announcer.send(v.VIP, v.Interface, false) // if it is held back, the router has still heard the question
}

// askOwner asks from our own address: from the VIP, the question would be an
// announcement.
func (w *Watch) askOwner(now time.Duration, v *watched) {
	if w.askAll(v, 1) {
		w.evidence(Evidence{v.VIP, AskOwner, now})
	}
}

// seekOwner asks everybody who has a VIP that is held here but that the router looks for
// elsewhere. A machine that also has the VIP, and speaks of it only when asked, then
// answers us, and is a rival.
func (w *Watch) seekOwner(v *watched) { w.askAll(v, 1) }

func (w *Watch) askAll(v *watched, spare int) bool {
	if !v.gw.own.IsValid() || !w.question(v.gw, v.gw.own, v.VIP, nil, spare) {
		return false
	}
	w.stats.Owners++
	return true
}

// answered reports the answer to a ping.
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

// hearSign takes what another machine claims or asks. A gateway does not count: it may
// answer for every address.
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
