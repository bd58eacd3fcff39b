// Package sim runs real elect machines in virtual time: with one seeded event queue, a
// network that can fail, kernels that bind what they are told to bind, and a judge that is
// separate from elect.
package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sipalive/elect"
)

// Time is global virtual time in ns. The boot clock of every node is derived from it.
type Time int64

func (t Time) String() string { return fmt.Sprintf("%.6fs", time.Duration(t).Seconds()) }

// World is one cluster in one run.
type World struct {
	Nodes []*Node
	VIPs  []elect.VIPConfig
	Now   Time
	Rand  *rand.Rand
	Net   Net
	Judge Judge

	Router *Router // nil: there is no router

	Fence    bool          // the kernel ends a lease by itself, whatever the agent does
	DiskTook time.Duration // how long it takes to write Durable

	// Trace, if set, gets a line for every step, packet and fault.
	Trace func(line string)

	all    elect.Config // every node and VIP that exists, whichever files name them
	named  map[elect.Node]*Node
	queue  queue
	alarms alarms
	order  uint64
	Steps  uint64
}

// New builds a cluster whose machines have not started yet. cfg.Self is ignored.
func New(seed uint64, cfg elect.Config) *World {
	w := &World{
		Rand: rand.New(rand.NewPCG(seed, 0x51a)), VIPs: cfg.VIPs, Fence: true, DiskTook: 2 * time.Millisecond,
		Net: Net{Base: 100 * time.Microsecond}, all: cfg, named: map[elect.Node]*Node{},
	}
	for i, n := range cfg.Nodes {
		node := &Node{w: w, Name: n.Name, Index: i, Rate: 1, Offset: elect.Instant(i+1) * 1e12, Config: cfg, wake: never}
		node.Config.Self = n.Name
		node.Config.VIPs = slices.DeleteFunc(slices.Clone(cfg.VIPs), func(v elect.VIPConfig) bool { return v.Lock })
		w.Nodes = append(w.Nodes, node)
		w.named[n.Name] = node
		w.alarms = append(w.alarms, node)
		node.alarm = i
	}
	for _, n := range w.Nodes {
		n.init(len(w.Nodes), len(w.VIPs))
	}
	w.Judge.init(w)
	return w
}

// Node returns a node by its name. An unknown name is a bug of the test.
func (w *World) Node(name elect.Node) *Node {
	if n := w.named[name]; n != nil {
		return n
	}
	panic("sim: no node " + string(name))
}

func (w *World) vipIndex(id elect.VIPID) int {
	for i, v := range w.VIPs {
		if v.ID == id {
			return i
		}
	}
	panic("sim: no VIP " + string(id))
}

// Start starts the agents of all nodes at the same moment.
func (w *World) Start() {
	for _, n := range w.Nodes {
		n.Start()
	}
}

// At calls f after the time d.
func (w *World) At(d time.Duration, f func()) { w.push(item{at: w.Now + Time(d), f: f}) }

func (w *World) push(it item) {
	w.order++
	it.order = w.order
	w.queue.push(it)
}

// next runs the earliest queued item or the earliest due machine, unless that is after
// end. It reports whether it ran one.
func (w *World) next(end Time) bool {
	waking := w.alarms[0]
	at := waking.wake
	if len(w.queue) > 0 && w.queue[0].at <= at {
		if w.queue[0].at > end {
			return false
		}
		it := w.queue.pop()
		w.Now = max(w.Now, it.at)
		it.run()
		return true
	}
	if at > end {
		return false
	}
	w.Now = max(w.Now, at)
	waking.wakeAt(never)
	waking.Step(elect.Tick{})
	return true
}

// Run lets virtual time pass.
func (w *World) Run(d time.Duration) {
	end := w.Now + Time(d)
	for w.next(end) {
	}
	w.Now = end
}

// RunUntil lets virtual time pass until cond returns true, at most limit. It reports
// whether cond returned true.
func (w *World) RunUntil(limit time.Duration, cond func() bool) bool {
	end := w.Now + Time(limit)
	for !cond() {
		if !w.next(end) {
			w.Now = end
			return cond()
		}
	}
	return true
}

// Holders returns the nodes whose kernel answers for the VIP right now: bound, and before
// the fence's deadline.
func (w *World) Holders(id elect.VIPID) (names []elect.Node) {
	i := w.vipIndex(id)
	for _, n := range w.Nodes {
		if n.effective(i) {
			names = append(names, n.Name)
		}
	}
	return names
}

// AllHeld reports whether every VIP has a holder.
func (w *World) AllHeld() bool {
	for i := range w.VIPs {
		if w.holder(i) == nil && !w.isLock(i) {
			return false
		}
	}
	return true
}

func (w *World) holder(i int) *Node {
	for _, n := range w.Nodes {
		if n.effective(i) {
			return n
		}
	}
	return nil
}

func (w *World) tracef(format string, args ...any) {
	if w.Trace != nil {
		w.Trace(fmt.Sprintf("%12s  ", w.Now) + fmt.Sprintf(format, args...))
	}
}
