package sim

import (
	"fmt"
	"time"

	"sipalive/elect"
	"sipalive/member"
)

// Meter counts what one node has sent, and measures how much of this machine's time its
// work has taken: the election and the real codec, without encryption, sockets and
// kernel.
type Meter struct {
	Packets, Bytes uint64 // sent, with member's header, unencrypted
	Heard          uint64
	Machine, Codec Stopwatch
	Failed         error // the codec's first error

	known   *member.Reader
	out, in []byte
}

// Stopwatch adds up many short times by the wall clock. A time longer than any work here
// can take means that the process lost its CPU meanwhile: it counts as an average one.
type Stopwatch struct {
	sum           time.Duration
	seen, skipped int
}

const longest = 300 * time.Microsecond

func (s *Stopwatch) add(d time.Duration) {
	if d > longest {
		s.skipped++
		return
	}
	s.sum += d
	s.seen++
}

// Total returns the sum.
func (s *Stopwatch) Total() time.Duration {
	return time.Duration(float64(s.sum) * float64(s.seen+s.skipped) / float64(max(s.seen, 1)))
}

// NewMeter returns a meter for the time of Machine.Step and of the codec.
func NewMeter() *Meter { return &Meter{known: member.NewReader()} }

func (n *Node) step(ev elect.Event) elect.Effects {
	if n.Meter == nil {
		return n.Machine.Step(n.local(), ev)
	}
	began := time.Now()
	eff := n.Machine.Step(n.local(), ev)
	n.Meter.Machine.add(time.Since(began))
	return eff
}

func (m *Meter) sends(h member.Header, msg elect.Message) {
	if m == nil {
		return
	}
	began := time.Now()
	b, err := member.Encode(m.out[:0], member.Packet{Header: h, Msg: msg})
	m.Codec.add(time.Since(began))
	m.out = b
	m.Packets++
	m.Bytes += uint64(len(b))
	m.note(err)
}

func (m *Meter) hears(h member.Header, msg elect.Message) {
	if m == nil {
		return
	}
	b, err := member.Encode(m.in[:0], member.Packet{Header: h, Msg: msg}) // this time is the sender's, not ours
	m.in = b
	m.note(err)
	began := time.Now()
	_, err = m.known.Decode(b)
	m.Codec.add(time.Since(began))
	m.Heard++
	m.note(err)
}

func (m *Meter) note(err error) {
	if m.Failed == nil {
		m.Failed = err
	}
}

// Settle starts every agent and lets time pass until every VIP is held, at most limit,
// and then for more. It reports whether every VIP was held in time. It checks only every
// 100 ms, since a check takes long among many nodes.
//
// Finding out about every PBX would take long too. So before the first packet passes,
// every node is told at once that all PBXes are well.
func (w *World) Settle(limit, more time.Duration) bool {
	for _, n := range w.Nodes {
		n.Wall(true)
	}
	w.Start()
	for _, n := range w.Nodes {
		for _, p := range w.Nodes {
			n.known[p.Index] = elect.SIPUp
			n.Step(elect.Health{Node: p.Name, SIP: elect.SIPUp})
		}
	}
	for _, n := range w.Nodes {
		n.Wall(false)
	}
	for end := w.Now + Time(limit); !w.AllHeld(); w.Run(100 * time.Millisecond) {
		if w.Now > end {
			return false
		}
	}
	w.Run(more)
	return true
}

// Crowd is a cluster of many nodes at rest. The first five nodes are voters; the i-th VIP
// prefers the i-th node after them. The disks hold the list of voters, as after a
// restart. There is no router, so nothing is relayed.
func Crowd(nodes, vips int) *World {
	cfg := elect.Config{Heartbeat: 200 * time.Millisecond, Lease: time.Second, Settle: time.Second, Stagger: 50 * time.Millisecond, HoldDown: time.Second,
		Exclude: time.Minute, PrepareTimeout: time.Second}
	var voters []elect.Node
	for i := range nodes {
		c := elect.NodeConfig{Name: elect.Node(fmt.Sprintf("pbx%d", i+1)), Voter: i < 5, Holder: true}
		cfg.Nodes = append(cfg.Nodes, c)
		if c.Voter {
			voters = append(voters, c.Name)
		}
	}
	for i := range vips {
		id := fmt.Sprintf("192.0.2.%d", 1+i)
		cfg.VIPs = append(cfg.VIPs, elect.VIPConfig{ID: elect.VIPID(id), Name: id, Weight: 1, Prefer: []elect.Node{cfg.Nodes[(5+i)%nodes].Name}})
	}
	w := New(1, cfg)
	for _, n := range w.Nodes {
		n.Durable = &elect.Durable{Active: elect.NewVoterList(voters...), LongestLease: cfg.Lease}
	}
	return w
}
