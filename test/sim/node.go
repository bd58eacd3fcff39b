package sim

import (
	"math/rand/v2"
	"time"

	"sipalive/elect"
)

// Node is one machine with its kernel, its PBX as seen by itself, and what
// survives of it.
type Node struct {
	Name        elect.Node
	Index       int
	Config      elect.Config
	Machine     *elect.Machine // nil while the agent is down
	Rate        float64        // of its clock against global time
	Offset      elect.Instant
	SIP         map[elect.Node]elect.SIPState // its own verdict of each node's PBX
	Cut         map[elect.Node]bool           // packets to these are lost
	PrepareTook time.Duration
	PrepareFail string
	Answers     []elect.CommandAnswer
	Runtime     *elect.Runtime
	Durable     *elect.Durable

	w         *World
	bound     map[elect.VIPID]bound
	instance  elect.Instance
	life      int // of the agent: what an earlier life scheduled is void
	paused    bool
	backlog   []elect.Event
	wake      Time
	acquired  map[elect.VIPID]elect.Epoch
	commandID uint64
}

type bound struct {
	on    bool
	until elect.Instant
	epoch elect.Epoch
	since elect.Instant
}

func (n *Node) local() elect.Instant {
	return n.Offset + elect.Instant(float64(n.w.Now)*n.Rate)
}

func (n *Node) global(t elect.Instant) Time {
	return Time(float64(t-n.Offset) / n.Rate)
}

// Start starts the agent on what its directories hold.
func (n *Node) Start() {
	n.life++
	r := elect.Restored{Runtime: n.Runtime, Durable: n.Durable}
	for id, b := range n.bound {
		if b.on && n.Runtime != nil && n.local() < b.until {
			r.Held = append(r.Held, elect.HeldVIP{VIP: id, Epoch: b.epoch, Until: b.until, Since: b.since})
		} else {
			delete(n.bound, id)
		}
	}
	m, err := elect.New(n.Config, r, elect.Instance(n.w.Rand.Uint64()|1), n.local(),
		rand.New(rand.NewPCG(n.w.Rand.Uint64(), uint64(n.Index))))
	if err != nil {
		panic(err)
	}
	n.Machine, n.instance = m, m.Instance()
	n.Step(elect.Tick{})
	for node, s := range n.SIP {
		n.Step(elect.Health{Node: node, SIP: s})
	}
}

// Kill ends the agent without a word; addresses stay until their lease's end.
func (n *Node) Kill() { n.Machine = nil; n.life++; n.paused, n.backlog = false, nil }

// PowerOff ends the whole host: tmpfs and addresses are gone.
func (n *Node) PowerOff() {
	n.Kill()
	n.Runtime = nil
	n.bound = map[elect.VIPID]bound{}
}

// Pause freezes the agent, Resume lets it go on with what has arrived.
func (n *Node) Pause() { n.paused = true }

// Resume ends Pause.
func (n *Node) Resume() {
	n.paused = false
	for _, ev := range n.backlog {
		n.Step(ev)
	}
	n.backlog = nil
	n.Step(elect.Tick{})
}

// See sets this node's own verdict of a node's PBX.
func (n *Node) See(node elect.Node, s elect.SIPState) {
	n.SIP[node] = s
	n.Step(elect.Health{Node: node, SIP: s})
}

// Do puts an operator's command to this node and returns its id.
func (n *Node) Do(c elect.Command) uint64 {
	n.commandID++
	c.ID = n.commandID
	n.Step(c)
	return c.ID
}

// Step gives the machine an event and carries out the effects as an agent and
// a kernel would.
func (n *Node) Step(ev elect.Event) {
	if n.Machine == nil {
		return
	}
	if n.paused {
		n.backlog = append(n.backlog, ev)
		return
	}
	eff := n.Machine.Step(n.local(), ev)
	if n.w.OnStep != nil {
		n.w.OnStep(n, ev, eff)
	}
	n.carryOut(eff)
	n.w.judge()
	n.schedule()
}

func (n *Node) later(d time.Duration, ev elect.Event) {
	life := n.life
	n.w.At(d, func() {
		if n.life == life {
			n.Step(ev)
		}
	})
}

func (n *Node) carryOut(eff elect.Effects) {
	if eff.Runtime != nil {
		n.Runtime = eff.Runtime
	}
	if eff.Durable != nil {
		d := eff.Durable
		life := n.life
		n.w.At(2*time.Millisecond, func() {
			if n.life == life {
				n.Durable = d
				n.Step(elect.Stored{Version: d.Version})
			}
		})
	}
	n.bind(eff.Want)
	for _, o := range eff.Send {
		n.transmit(o)
	}
	for _, p := range eff.Prepare {
		fail := n.PrepareFail
		if fail == "" && n.SIP[n.Name] != elect.SIPUp {
			fail = "its PBX does not answer"
		}
		n.later(n.PrepareTook+50*time.Microsecond, elect.Prepared{VIP: p.VIP, Epoch: p.Epoch, Failed: fail})
	}
	for _, t := range eff.Transitions {
		if t.Kind == elect.Acquired {
			n.later(time.Millisecond, elect.Verified{VIP: t.VIP, Epoch: t.Epoch, OK: n.SIP[n.Name] == elect.SIPUp})
		}
	}
	n.Answers = append(n.Answers, eff.Answers...)
}

func (n *Node) bind(want []elect.Desired) {
	for _, d := range want {
		b := n.bound[d.VIP]
		switch {
		case d.Hold && !b.on:
			n.bound[d.VIP] = bound{on: true, until: d.Until, epoch: d.Epoch, since: n.local()}
			n.checkEpoch(d)
			n.later(20*time.Microsecond, elect.Bound{VIP: d.VIP, On: true})
		case d.Hold:
			b.until, b.epoch = d.Until, d.Epoch
			n.bound[d.VIP] = b
		case b.on:
			delete(n.bound, d.VIP)
			n.later(20*time.Microsecond, elect.Bound{VIP: d.VIP})
		}
	}
}

// checkEpoch: a new acquisition's epoch is above that of every one before it.
func (n *Node) checkEpoch(d elect.Desired) {
	for _, o := range n.w.Nodes {
		if e := o.acquired[d.VIP]; e >= d.Epoch {
			n.w.violate("%s acquired by %s under epoch %d, %s had %d", d.VIP, n.Name, d.Epoch, o.Name, e)
		}
	}
	if n.acquired == nil {
		n.acquired = map[elect.VIPID]elect.Epoch{}
	}
	n.acquired[d.VIP] = d.Epoch
}

func (n *Node) transmit(o elect.Outgoing) {
	to := n.w.Node(o.To)
	if n.Cut[o.To] {
		return
	}
	d, ok := n.w.Delay(n, to)
	if !ok {
		return
	}
	instance, seq := n.instance, o.Seq
	n.w.At(d, func() {
		if to.Machine != nil && instance == n.instance {
			to.Step(elect.Received{From: n.Name, Instance: instance, Seq: seq, Msg: o.Msg})
		}
	})
}

func (n *Node) schedule() {
	at := n.global(n.Machine.Deadline()) + 1
	if n.wake > n.w.Now && n.wake <= at {
		return
	}
	n.wake = at
	life := n.life
	n.w.At(time.Duration(max(at-n.w.Now, 1)), func() {
		if n.life == life && n.wake == at {
			n.wake = 0
			n.Step(elect.Tick{})
		}
	})
}
