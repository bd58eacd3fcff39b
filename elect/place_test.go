package elect_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sipalive/elect"
)

// view is what every node of a cluster knows once all have heard all: the input of the
// placement.
type view struct {
	nodes []elect.NodeConfig
	vips  []elect.VIPConfig
	is    []nodeView
}

type nodeView struct {
	up, drained bool
	holds       []elect.VIPID
}

// started is when the machines of a view started. They hear all a moment later.
const started = elect.Instant(1e12)

func drawView(t *rapid.T) view {
	var v view
	n := rapid.IntRange(2, 6).Draw(t, "nodes")
	for i := range n {
		v.nodes = append(v.nodes, elect.NodeConfig{Name: elect.Node(rune('a' + i)), Voter: true,
			Holder: i == 0 || rapid.IntRange(0, 4).Draw(t, "witness") > 0, Capacity: rapid.IntRange(1, 3).Draw(t, "capacity")})
		v.is = append(v.is, nodeView{up: rapid.IntRange(0, 3).Draw(t, "sick") > 0, drained: rapid.IntRange(0, 4).Draw(t, "drained") == 0})
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "vips") {
		id := elect.VIPID(fmt.Sprintf("192.0.2.%d", 101+i))
		c := elect.VIPConfig{ID: id, Name: fmt.Sprintf("vip%d", i+1), Weight: rapid.IntRange(1, 3).Draw(t, "weight")}
		for _, p := range rapid.Permutation(v.nodes).Draw(t, "prefer")[:rapid.IntRange(0, n).Draw(t, "preferred")] {
			c.Prefer = append(c.Prefer, p.Name)
		}
		v.vips = append(v.vips, c)
		if h := rapid.IntRange(-n, n-1).Draw(t, "holder"); h >= 0 && v.nodes[h].Holder {
			v.is[h].holds = append(v.is[h].holds, id)
		}
	}
	return v
}

// machine is the machine of node self, which has heard every node that is not in without.
func (v view) machine(t *rapid.T, self int, without ...elect.Node) *elect.Machine {
	var list []elect.Node
	for _, n := range v.nodes {
		list = append(list, n.Name)
	}
	lists := elect.Lists{File: elect.NewVoterList(list...), Active: elect.NewVoterList(list...)}
	var held []elect.HeldVIP
	for _, id := range v.is[self].holds {
		held = append(held, elect.HeldVIP{VIP: id, Epoch: 1, Until: started.Add(900 * time.Millisecond), Since: started})
	}
	m, err := elect.New(elect.Config{Self: v.nodes[self].Name, Nodes: v.nodes, VIPs: v.vips, Heartbeat: 200 * time.Millisecond, Lease: time.Second,
		Settle: time.Second, Stagger: 50 * time.Millisecond, Exclude: time.Minute, PrepareTimeout: time.Second},
		elect.Restored{Runtime: &elect.Runtime{Instance: elect.Instance(self + 1)}, Held: held,
			Durable: &elect.Durable{Active: lists.Active, LongestLease: time.Second, Drained: v.is[self].drained}}, 0, started, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	now := started
	for i, n := range v.nodes {
		now++
		sip := elect.SIPUp
		if !v.is[i].up {
			sip = elect.SIPRefused
		}
		m.Step(now, elect.Health{Node: n.Name, SIP: sip})
		if i == self || slices.Contains(without, n.Name) {
			continue
		}
		b := elect.Heartbeat{Lists: lists, Lease: time.Second, SIP: sip, Drained: v.is[i].drained}
		for _, id := range v.is[i].holds {
			b.Holds = append(b.Holds, elect.Hold{VIP: id, Epoch: 1})
		}
		m.Step(now, elect.Received{From: n.Name, Instance: elect.Instance(i + 1), Seq: 1, Msg: b})
	}
	return m
}

func (v view) node(name elect.Node) (int, nodeView) {
	i := slices.IndexFunc(v.nodes, func(n elect.NodeConfig) bool { return n.Name == name })
	return i, v.is[i]
}

func (v view) fit(i int) bool  { return v.able(i) && !v.is[i].drained }
func (v view) able(i int) bool { return v.nodes[i].Holder && v.is[i].up }

// TestPlacementIsOne: every node computes the same placement from the same
// view, in the same words (§4.8).
func TestPlacementIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		want := v.machine(t, 0).Plan()
		for i := 1; i < len(v.nodes); i++ {
			if got := v.machine(t, i).Plan(); !slices.Equal(got, want) {
				t.Fatalf("%s plans %+v, %s plans %+v", v.nodes[i].Name, got, v.nodes[0].Name, want)
			}
		}
	})
}

// TestPlanWithout: `plan --without` a node says what is planned once that node is gone.
func TestPlanWithout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		gone := v.nodes[rapid.IntRange(1, len(v.nodes)-1).Draw(t, "gone")].Name
		if got, want := v.machine(t, 0).Plan(gone), v.machine(t, 0, gone).Plan(); !slices.Equal(got, want) {
			t.Fatalf("without %s: %+v, once it is gone: %+v", gone, got, want)
		}
	})
}

// TestPlacementRules checks the four rules of §4.8 by a second implementation, one VIP
// after another.
func TestPlacementRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		anyFit := false
		load, count := make([]int, len(v.nodes)), make([]int, len(v.nodes))
		for i := range v.nodes {
			anyFit = anyFit || v.fit(i)
		}
		plan := v.machine(t, 0).Plan()
		stays := func(k int) int { // rule 1
			for i := range v.nodes {
				if slices.Contains(v.is[i].holds, v.vips[k].ID) && (v.fit(i) || !anyFit) {
					return i
				}
			}
			return -1
		}
		for k, c := range v.vips {
			if i := stays(k); i >= 0 {
				load[i] += c.Weight
				count[i]++
			}
		}
		for k, c := range v.vips {
			if i := stays(k); i >= 0 {
				if plan[k].Node != v.nodes[i].Name {
					t.Fatalf("%s stays at %s: %+v", c.Name, v.nodes[i].Name, plan[k])
				}
				continue
			}
			if plan[k].Node == "" {
				for i := range v.nodes {
					if v.able(i) {
						t.Fatalf("%s nowhere, though %s is able", c.Name, v.nodes[i].Name)
					}
				}
				continue
			}
			at, _ := v.node(plan[k].Node)
			v.judge(t, k, at, anyFit, load, count)
			load[at] += c.Weight
			count[at]++
		}
	})
}

// judge fails the test if VIP k should not be at node at, given what the nodes carry.
func (v view) judge(t *rapid.T, k, at int, anyFit bool, load, count []int) {
	c := v.vips[k]
	if !v.able(at) || v.is[at].drained && anyFit { // rule 4
		t.Fatalf("%s at %s, which is sick, a witness, or drained with others fit", c.Name, v.nodes[at].Name)
	}
	place := func(i int) int {
		if p := slices.Index(c.Prefer, v.nodes[i].Name); p >= 0 {
			return p
		}
		return len(c.Prefer)
	}
	for i := range v.nodes {
		switch {
		case !v.able(i) || v.is[i].drained != v.is[at].drained:
		case count[i] == 0 && count[at] > 0: // N+1: nobody takes a second one while a fit node has none
			t.Fatalf("%s at %s, which carries %d, though %s is free", c.Name, v.nodes[at].Name, count[at], v.nodes[i].Name)
		case count[i] == 0 && place(i) < place(at): // rule 2
			t.Fatalf("%s at %s, though %s is free and preferred", c.Name, v.nodes[at].Name, v.nodes[i].Name)
		case count[at] > 0 && load[i]*v.nodes[at].Capacity < load[at]*v.nodes[i].Capacity: // rule 3
			t.Fatalf("%s at %s with load %d/%d, though %s has %d/%d", c.Name, v.nodes[at].Name, load[at], v.nodes[at].Capacity,
				v.nodes[i].Name, load[i], v.nodes[i].Capacity)
		}
	}
}

// TestNoMoveWithoutCause: a holder that is fit and not drained keeps its VIPs,
// whatever the others are and whatever their place in prefer (§4.8 rule 1).
func TestNoMoveWithoutCause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		v.is[0] = nodeView{up: true, holds: []elect.VIPID{v.vips[0].ID}}
		for i := 1; i < len(v.is); i++ {
			v.is[i].holds = slices.DeleteFunc(v.is[i].holds, func(id elect.VIPID) bool { return id == v.vips[0].ID })
		}
		m := v.machine(t, 0)
		for now := started.Add(time.Millisecond); now < started.Add(800*time.Millisecond); now = max(m.Deadline(), now+1) {
			eff := m.Step(now, elect.Tick{})
			for _, o := range eff.Send {
				switch msg := o.Msg.(type) {
				case elect.Prepare:
					t.Fatalf("moves %s to %s", msg.VIP, o.To)
				case elect.Release:
					t.Fatalf("releases %s", msg.VIP)
				}
			}
			if !eff.Want[0].Hold {
				t.Fatal("does not hold it any more")
			}
		}
	})
}
