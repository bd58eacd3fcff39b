package sim

import (
	"time"

	"sipalive/elect"
	"sipalive/member"
)

// Net is what the network does to every packet, in addition to the cuts between pairs.
type Net struct {
	Base   time.Duration // least time, one way
	Jitter time.Duration // added evenly at random: so packets overtake each other
	Loss   float64
	Dup    float64
	// Slow is the share of packets that take up to SlowBy longer. Delays above a lease
	// would revive what is long over, if anything could.
	Slow   float64
	SlowBy time.Duration
}

// transmit sends one packet. A cut loses it both when it leaves and when it would arrive.
func (n *Node) transmit(to *Node, h member.Header, msg elect.Message) {
	w := n.w
	n.Meter.sends(h, msg)
	copies := 1
	if w.Net.Dup > 0 && w.Rand.Float64() < w.Net.Dup {
		copies = 2
	}
	for range copies {
		if n.cut[to.Index] > 0 || n.walls > 0 || to.walls > 0 || w.Net.Loss > 0 && w.Rand.Float64() < w.Net.Loss ||
			n.loss[to.Index] > 0 && w.Rand.Float64() < n.loss[to.Index] {
			continue
		}
		d := w.Net.Base
		if w.Net.Jitter > 0 {
			d += time.Duration(w.Rand.Int64N(int64(w.Net.Jitter)))
		}
		if w.Net.Slow > 0 && w.Rand.Float64() < w.Net.Slow {
			d += time.Duration(w.Rand.Int64N(int64(w.Net.SlowBy)))
		}
		w.push(item{at: w.Now + Time(d), n: to, hdr: h, msg: msg, pkt: true})
	}
}

func newestOnly(m elect.Message) bool {
	switch m.(type) {
	case elect.Heartbeat, elect.Ask:
		return true
	}
	return false
}

// arrive takes a packet from the network through the real replay guard.
func (n *Node) arrive(h member.Header, msg elect.Message) {
	if n.Machine == nil || n.cut2(h.From) {
		return
	}
	n.Meter.hears(h, msg)
	if n.paused {
		n.backlog = append(n.backlog, delivery{h: h, msg: msg})
		return
	}
	n.judgePacket(h, msg, false)
}

// arriveRelayed takes a packet that came through the router.
func (n *Node) arriveRelayed(h member.Header, msg elect.Message) {
	switch {
	case n.Machine == nil:
	case n.paused:
		n.backlog = append(n.backlog, delivery{h: h, msg: msg, relayed: true})
	default:
		n.judgePacket(h, msg, true)
	}
}

// cut2 reports whether the path from that node is cut: a packet under way when the cut
// began does not arrive.
func (n *Node) cut2(from elect.Node) bool { return n.w.Node(from).cut[n.Index] > 0 }

func (n *Node) judgePacket(h member.Header, msg elect.Message, relayed bool) {
	if msg == nil {
		if v, news, owed := n.guard.Greet(h); v == member.Fresh && (news || owed) {
			n.greet(h.From, owed)
		}
		return
	}
	verdict, newest := member.Verdict(0), newestOnly(msg)
	if relayed {
		var overtaken bool
		if verdict, overtaken = n.guard.AcceptRelayed(h, newest); overtaken {
			msg = nil
		}
	} else {
		verdict = n.guard.Accept(h, newest)
	}
	switch verdict {
	case member.Adopted:
		n.greet(h.From, false)
	case member.Unproven:
		n.greet(h.From, true)
		return
	case member.Fresh:
	default:
		n.stale++
		return
	}
	n.Step(elect.Received{From: h.From, Instance: h.Instance, Seq: h.Seq, Msg: msg, Relayed: relayed})
}

// greet sends a hello, as the real agent does: at most one per peer in 20 ms.
func (n *Node) greet(to elect.Node, owed bool) {
	p := n.w.Node(to)
	if !owed || n.w.Now < n.greeted[p.Index]+Time(20*time.Millisecond) {
		return
	}
	n.greeted[p.Index] = n.w.Now
	n.transmit(p, n.guard.Stamp(to, 0), nil)
}

// Cut loses every packet from n to these nodes until Uncut. Cuts add up.
func (n *Node) Cut(to ...*Node) {
	for _, p := range to {
		n.cut[p.Index]++
		n.w.wire(n, p)
	}
}

// Uncut undoes one Cut.
func (n *Node) Uncut(to ...*Node) {
	for _, p := range to {
		n.cut[p.Index]--
		n.w.wire(n, p)
	}
}

// wire lets the SIP probers of both ends notice that packets no longer pass, or pass
// again.
func (w *World) wire(a, b *Node) {
	a.look(b)
	b.look(a)
}
