// Package sim runs real elect machines under virtual time: one seeded event
// queue, a network that can fail, kernels that bind what they are told, and a
// judge that is not elect.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"sipalive/elect"
)

// Time is global virtual time; every node's boot clock is derived from it.
type Time int64

// World is one cluster in one run.
type World struct {
	Nodes      []*Node
	Violations []string
	Delay      func(from, to *Node) (time.Duration, bool) // false: lost
	OnStep     func(n *Node, ev elect.Event, eff elect.Effects)
	Now        Time
	Rand       *rand.Rand
	queue      queue
	order      uint64
	cfg        elect.Config
}

// New builds a cluster of machines that have not started yet. cfg.Self is
// ignored.
func New(seed uint64, cfg elect.Config) *World {
	w := &World{Rand: rand.New(rand.NewPCG(seed, 0x51a)), cfg: cfg}
	w.Delay = func(_, _ *Node) (time.Duration, bool) { return 100 * time.Microsecond, true }
	for i, n := range cfg.Nodes {
		w.Nodes = append(w.Nodes, &Node{w: w, Name: n.Name, Index: i, Rate: 1, Offset: elect.Instant(i+1) * 1e12,
			SIP: map[elect.Node]elect.SIPState{}, Cut: map[elect.Node]bool{}, bound: map[elect.VIPID]bound{}, Config: cfg})
		w.Nodes[i].Config.Self = n.Name
	}
	return w
}

// Node returns a node by name; an unknown name is a bug of the test.
func (w *World) Node(name elect.Node) *Node {
	for _, n := range w.Nodes {
		if n.Name == name {
			return n
		}
	}
	panic("sim: no node " + string(name))
}

// At calls f after d.
func (w *World) At(d time.Duration, f func()) {
	w.order++
	heap.Push(&w.queue, item{at: w.Now + Time(d), order: w.order, f: f})
}

// Run lets virtual time pass.
func (w *World) Run(d time.Duration) {
	end := w.Now + Time(d)
	for len(w.queue) > 0 && w.queue[0].at <= end {
		it := heap.Pop(&w.queue).(item)
		w.Now = it.at
		it.f()
	}
	w.Now = end
	w.judge()
}

// RunUntil lets time pass until cond holds, at most limit, and reports whether
// it came true.
func (w *World) RunUntil(limit time.Duration, cond func() bool) bool {
	end := w.Now + Time(limit)
	for !cond() {
		if len(w.queue) == 0 || w.queue[0].at > end {
			w.Now = end
			return cond()
		}
		it := heap.Pop(&w.queue).(item)
		w.Now = it.at
		it.f()
	}
	return true
}

// Holders are the nodes whose kernel answers for the VIP right now: bound, and
// not past the fence's deadline.
func (w *World) Holders(v elect.VIPID) (names []elect.Node) {
	for _, n := range w.Nodes {
		if b := n.bound[v]; b.on && n.local() < b.until {
			names = append(names, n.Name)
		}
	}
	return names
}

// judge looks at the kernels, not at the machines: at most one holder of each
// VIP, and epochs that rise.
func (w *World) judge() {
	for _, v := range w.cfg.VIPs {
		if h := w.Holders(v.ID); len(h) > 1 {
			w.violate("%s has %d holders: %v", v.ID, len(h), h)
		}
	}
}

func (w *World) violate(format string, args ...any) {
	w.Violations = append(w.Violations, fmt.Sprintf("%s ", time.Duration(w.Now))+fmt.Sprintf(format, args...))
}

type item struct {
	at    Time
	order uint64
	f     func()
}

type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	old := *q
	it := old[len(old)-1]
	*q = old[:len(old)-1]
	return it
}
