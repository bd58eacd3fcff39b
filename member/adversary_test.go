package member

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"sipalive/elect"
)

// recorded is a packet as it was on the wire, recorded by the adversary.
type recorded struct {
	Header
	newest bool
	made   int // the step at which it was made
}

// run is one life of a node's agent.
type run struct {
	guard    *Guard
	started  int
	instance elect.Instance
}

// world is a few nodes and an adversary who controls the network. The adversary records
// every packet and delivers it only when and as often as he likes, to any node. He cannot
// make packets, because he has no key.
type world struct {
	t         *rapid.T
	step      int
	nodes     []elect.Node
	runs      map[elect.Node]*run
	seq       map[elect.Node]elect.Seq // the stored bound: survives the agent, not the boot
	instances elect.Instance
	wire      []recorded

	taken  map[string]bool                        // exact packet, per receiver, forever
	number map[*run]map[string]bool               // sender, instance and number, per life
	newest map[*run]map[elect.Node]elect.Seq      // highest one accepted from the current instance
	latest map[*run]map[elect.Node]elect.Instance // current instance, as seen in accepted packets
	gone   map[*run]map[elect.Node]map[elect.Instance]bool
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, nodes: []elect.Node{"a", "b", "c"}, runs: map[elect.Node]*run{}, seq: map[elect.Node]elect.Seq{},
		taken: map[string]bool{}, number: map[*run]map[string]bool{}, newest: map[*run]map[elect.Node]elect.Seq{},
		latest: map[*run]map[elect.Node]elect.Instance{}, gone: map[*run]map[elect.Node]map[elect.Instance]bool{},
	}
	for _, n := range w.nodes {
		w.boot(n)
	}
	return w
}

func (w *world) start(n elect.Node, i elect.Instance) {
	r := &run{guard: NewGuard(n, i, shared), started: w.step, instance: i}
	w.runs[n] = r
	w.number[r], w.newest[r] = map[string]bool{}, map[elect.Node]elect.Seq{}
	w.latest[r], w.gone[r] = map[elect.Node]elect.Instance{}, map[elect.Node]map[elect.Instance]bool{}
}

func (w *world) boot(n elect.Node) {
	w.instances++
	w.seq[n] = 0
	w.start(n, w.instances)
}

func (w *world) restart(n elect.Node) {
	w.seq[n] += elect.Seq(rapid.IntRange(0, 70).Draw(w.t, "bound")) // the bound is stored ahead in blocks
	w.start(n, w.runs[n].instance)
}

func (w *world) send(from, to elect.Node, hello, newest bool) recorded {
	seq := elect.Seq(0)
	if !hello {
		w.seq[from]++
		seq = w.seq[from]
	}
	p := recorded{w.runs[from].guard.Stamp(to, seq), newest, w.step}
	w.wire = append(w.wire, p)
	return p
}

// deliver gives p to a node and checks every promise of §4.2.
func (w *world) deliver(p recorded, at elect.Node) Verdict {
	r := w.runs[at]
	if p.Seq == 0 {
		v, _, _ := r.guard.Greet(p.Header)
		return v
	}
	v := r.guard.Accept(p.Header, p.newest)
	if v != Fresh && v != Adopted {
		return v
	}
	exact := fmt.Sprint(at, p.Header)
	number := fmt.Sprint(p.From, p.Instance, p.Seq)
	switch {
	case p.To != at:
		w.t.Fatalf("%s took a packet for %s", at, p.To)
	case w.taken[exact]:
		w.t.Fatalf("%s took %+v a second time, restarts included", at, p)
	case w.number[r][number]:
		w.t.Fatalf("%s took packet %d of %s twice", at, p.Seq, p.From)
	case p.made < r.started:
		w.t.Fatalf("%s, started in step %d, took %+v", at, r.started, p)
	case w.gone[r][p.From][p.Instance]:
		w.t.Fatalf("%s took %+v of an instance that had been replaced", at, p)
	}
	if last := w.latest[r][p.From]; last != p.Instance {
		if last > p.Instance {
			w.t.Fatalf("%s went back from instance %d of %s to %d", at, last, p.From, p.Instance)
		}
		if w.gone[r][p.From] == nil {
			w.gone[r][p.From] = map[elect.Instance]bool{}
		}
		w.gone[r][p.From][last] = true
		w.latest[r][p.From], w.newest[r][p.From] = p.Instance, 0
	}
	if p.newest && p.Seq <= w.newest[r][p.From] {
		w.t.Fatalf("%s took the ask %d of %s after its packet %d", at, p.Seq, p.From, w.newest[r][p.From])
	}
	w.taken[exact], w.number[r][number] = true, true
	w.newest[r][p.From] = max(w.newest[r][p.From], p.Seq)
	return v
}

func TestAdversary(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		node := rapid.SampledFrom(w.nodes)
		pair := func() (elect.Node, elect.Node) {
			from := node.Draw(t, "from")
			return from, rapid.SampledFrom(without(w.nodes, from)).Draw(t, "to")
		}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				from, to := pair()
				w.send(from, to, rapid.Bool().Draw(t, "hello"), rapid.Bool().Draw(t, "newest"))
			},
			"send and deliver": func(t *rapid.T) {
				from, to := pair()
				w.deliver(w.send(from, to, false, rapid.Bool().Draw(t, "newest")), to)
			},
			"handshake": func(t *rapid.T) {
				from, to := pair()
				w.deliver(w.send(from, to, true, false), to)
				w.deliver(w.send(to, from, true, false), from)
			},
			"replay": func(t *rapid.T) {
				if len(w.wire) == 0 {
					t.Skip("nothing recorded")
				}
				w.deliver(rapid.SampledFrom(w.wire).Draw(t, "packet"), node.Draw(t, "at"))
			},
			"replay to its receiver": func(t *rapid.T) {
				if len(w.wire) == 0 {
					t.Skip("nothing recorded")
				}
				p := rapid.SampledFrom(w.wire).Draw(t, "packet")
				w.deliver(p, p.To)
			},
			"replay all in order": func(*rapid.T) {
				for _, p := range w.wire {
					w.deliver(p, p.To)
				}
			},
			"restart the agent": func(t *rapid.T) { w.restart(node.Draw(t, "node")) },
			"reboot":            func(t *rapid.T) { w.boot(node.Draw(t, "node")) },
			"":                  func(*rapid.T) { w.step++ },
		})
		taken += len(w.taken)
		w.heal()
	})
	if taken == 0 {
		t.Error("no packet was ever taken: the test shows nothing")
	}
}

// heal checks that one round trip of hellos is enough once the adversary stops.
func (w *world) heal() {
	for _, from := range w.nodes {
		for _, to := range without(w.nodes, from) {
			w.deliver(w.send(from, to, true, false), to)
			w.deliver(w.send(to, from, true, false), from)
			if v := w.deliver(w.send(from, to, false, true), to); v != Fresh && v != Adopted {
				w.t.Fatalf("%s is not heard by %s after a handshake: %v", from, to, v)
			}
		}
	}
}

func without(nodes []elect.Node, n elect.Node) []elect.Node {
	var others []elect.Node
	for _, o := range nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}
