package sim

import (
	"time"

	"sipalive/elect"
)

// sees returns what a probe of p's PBX from n would find now.
func (n *Node) sees(p *Node) elect.SIPState {
	if s, ok := n.over[p.Index]; ok {
		return s
	}
	switch {
	case n == p && n.blind[p.Index] && p.PBX == elect.SIPUp:
		return elect.SIPSilent
	case n == p:
		return p.PBX
	case p.Off, n.blind[p.Index], n.cut[p.Index] > 0, p.cut[n.Index] > 0:
		return elect.SIPSilent
	}
	return p.PBX
}

// look lets n's prober find out about p's PBX: about its own within 20 ms, about
// another's within its interval.
func (n *Node) look(p *Node) {
	d := time.Duration(1+n.w.Rand.IntN(20)) * time.Millisecond
	if n != p {
		d = time.Duration(20+n.w.Rand.IntN(500)) * time.Millisecond
	}
	n.lookSoon(p, d)
}

func (n *Node) lookSoon(p *Node, d time.Duration) {
	if n.Machine == nil {
		return
	}
	n.looks[p.Index]++
	look, life, since := n.looks[p.Index], n.life, n.local()
	n.w.At(d, func() {
		if n.life != life || look != n.looks[p.Index] {
			return
		}
		s := n.sees(p)
		if s == elect.SIPSilent && n.known[p.Index] == elect.SIPUp {
			s = elect.SIPSuspect // one probe unanswered; the next ones decide
			defer n.look(p)
		}
		if s != n.known[p.Index] || s.Doubted() {
			n.known[p.Index] = s
			n.Step(elect.Health{Node: p.Name, SIP: s, Since: since, Last: since})
		}
	})
}

// SetPBX makes the node's PBX answer, fall silent or refuse. Each prober finds out in its
// own time.
func (n *Node) SetPBX(s elect.SIPState) {
	n.w.tracef("%s PBX %s", n.Name, s)
	n.PBX = s
	for _, o := range n.w.Nodes {
		o.look(n)
	}
}

// SetBlind makes n deaf for p's PBX, or lets it hear that PBX again.
func (n *Node) SetBlind(p *Node, blind bool) {
	n.w.tracef("%s blind for %s: %v", n.Name, p.Name, blind)
	n.blind[p.Index] = blind
	n.look(p)
}

// See sets n's verdict about p's PBX by hand, at once. SIPUnknown gives the verdict back
// to the prober.
func (n *Node) See(p *Node, s elect.SIPState) {
	if s == elect.SIPUnknown {
		delete(n.over, p.Index)
		n.lookSoon(p, 0)
		return
	}
	n.over[p.Index], n.known[p.Index] = s, s
	n.Step(elect.Health{Node: p.Name, SIP: s})
}
