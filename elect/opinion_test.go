package elect_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sipalive/elect"
)

// gossip is machine b, which hears anything from anybody, and a record of what it has
// heard.
type gossip struct {
	t     *testing.T
	r     *rand.Rand
	m     *elect.Machine
	cfg   elect.Config
	now   elect.Instant
	seq   elect.Seq
	boots map[elect.Node]elect.Instance
	said  map[elect.Node]map[elect.Node]elect.SIPState // who says what about whose PBX, its own included
}

var everything = []elect.SIPState{elect.SIPUnknown, elect.SIPUp, elect.SIPUp, elect.SIPUp, elect.SIPSuspect, elect.SIPSilent, elect.SIPRefused}

func (g *gossip) any() elect.SIPState { return everything[g.r.IntN(len(everything))] }

// TestOpinionsFollow: counting opinions when they are said gives the same as asking
// everybody about everybody in every step. That holds through silence, new boots,
// heartbeats that name only what is not well, and files with other nodes.
func TestOpinionsFollow(t *testing.T) {
	for seed := range uint64(20) {
		g := &gossip{t: t, r: rand.New(rand.NewPCG(seed, 3)), now: 1e12, boots: map[elect.Node]elect.Instance{}, said: map[elect.Node]map[elect.Node]elect.SIPState{}}
		g.cfg = benchConfig()
		g.cfg.Nodes = append(g.cfg.Nodes, elect.NodeConfig{Name: "d", Holder: true}, elect.NodeConfig{Name: "e", Holder: true})
		m, err := elect.New(g.cfg, elect.Restored{Durable: &elect.Durable{Active: abc, LongestLease: time.Second}}, 21, g.now, g.r)
		if err != nil {
			t.Fatal(err)
		}
		g.m = m
		m.Step(g.now, elect.Tick{})
		g.said["b"] = map[elect.Node]elect.SIPState{}
		for i := range 600 {
			what := g.happen()
			g.check(fmt.Sprintf("seed %d, step %d, %s", seed, i, what))
		}
	}
}

func (g *gossip) happen() string {
	nodes := g.cfg.Nodes
	n := nodes[g.r.IntN(len(nodes))].Name
	switch k := g.r.IntN(20); {
	case k < 3:
		g.now = g.now.Add(time.Duration(g.r.IntN(400)) * time.Millisecond)
		g.m.Step(g.now, elect.Tick{})
		return "time passes"
	case k < 5:
		s := g.any()
		g.said["b"][n] = s
		g.m.Step(g.now, elect.Health{Node: n, SIP: s})
		return fmt.Sprintf("b says %s of %s", s, n)
	case k == 5:
		nodes := slices.Clone(g.cfg.Nodes)
		if nodes[len(nodes)-1].Name == "e" {
			nodes = slices.Delete(nodes, 3, len(nodes))
			g.forget("d")
			g.forget("e")
		} else {
			nodes = append(nodes, elect.NodeConfig{Name: "d", Holder: true}, elect.NodeConfig{Name: "e", Holder: true})
		}
		g.cfg.Nodes, g.cfg.Digest = nodes, uint64(len(nodes))
		g.m.Step(g.now, elect.Reconfigure{Config: g.cfg})
		return fmt.Sprintf("a file of %d nodes", len(nodes))
	case n == "b":
		return "nothing"
	case k == 6:
		g.boots[n]++
		delete(g.said, n)
	}
	g.beat(n)
	return fmt.Sprintf("%s says %v", n, g.said[n])
}

func (g *gossip) forget(n elect.Node) {
	delete(g.said, n)
	for _, of := range g.said {
		delete(of, n)
	}
}

// beat delivers a heartbeat of n that says the same as the one before, or something else.
func (g *gossip) beat(n elect.Node) {
	before, of := g.said[n], g.said[n]
	if of == nil || len(of) < len(g.cfg.Nodes) || g.r.IntN(3) == 0 {
		of = map[elect.Node]elect.SIPState{}
		for _, o := range g.cfg.Nodes {
			of[o.Name] = g.any()
		}
		g.said[n] = of
	}
	b := elect.Heartbeat{Config: g.cfg.Digest, Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, SIP: of[n]}
	if g.r.IntN(2) == 0 {
		b.Rest = elect.SIPUp
	}
	for _, o := range g.cfg.Nodes {
		if o.Name != n && of[o.Name] != b.Rest {
			b.Observes = append(b.Observes, elect.Observation{Node: o.Name, SIP: of[o.Name]})
		}
	}
	if g.r.IntN(4) == 0 { // its file differs, and it has not heard yet that ours does
		b.Config = 99
		for _, o := range g.cfg.Nodes {
			if b.Rest == elect.SIPUp && o.Name != n && of[o.Name] == elect.SIPUp {
				of[o.Name] = before[o.Name]
			}
		}
	}
	g.seq++
	g.m.Step(g.now, elect.Received{From: n, Instance: 11 + g.boots[n], Seq: g.seq, Msg: b})
}

func (g *gossip) check(when string) {
	g.t.Helper()
	s := g.m.Status()
	for i, p := range s.Nodes {
		if !p.Alive {
			continue
		}
		if p.Name != "b" { // whether b's own doubt counts is tested elsewhere: TestVerdictsTold
			delete(g.said["b"], p.Name)
			for _, v := range p.Views {
				if v.Node == "b" {
					g.said["b"][p.Name] = v.SIP
				}
			}
		}
		live, down, doubt := 0, 0, 0
		for _, o := range s.Nodes {
			if v := g.said[o.Name][p.Name]; o.Name != p.Name && o.Alive && v != elect.SIPUnknown {
				live++
				if v.Down() {
					down++
				}
				if v.Doubted() {
					doubt++
				}
			}
		}
		want := false
		switch g.said[p.Name][p.Name] {
		case elect.SIPUnknown, elect.SIPRefused:
			want = true
		case elect.SIPSilent:
			want = doubt > 0 || live == 0
		default:
			want = down == live && 2*live > len(s.Nodes)-1
		}
		if got := p.Unfit != ""; got != want {
			g.t.Fatalf("%s: %s (node %d of %d) is unfit: %v (%s), want %v: of %d live %d say down, %d doubt; all said %v",
				when, p.Name, i, len(s.Nodes), got, p.Unfit, want, live, down, doubt, g.said)
		}
	}
}

// TestOpinionsOfAnotherFile: the same heartbeat of a peer means something else once this
// node has taken the peer's file.
func TestOpinionsOfAnotherFile(t *testing.T) {
	cfg := benchConfig()
	m, err := elect.New(cfg, elect.Restored{Durable: &elect.Durable{Active: abc, LongestLease: time.Second}}, 21, 1e12, rand.New(rand.NewPCG(1, 3)))
	if err != nil {
		t.Fatal(err)
	}
	another, seq := cfg.Digest+1, elect.Seq(0)
	says := func() elect.SIPState {
		seq++
		m.Step(1e12, elect.Received{From: "c", Instance: 11, Seq: seq, Msg: elect.Heartbeat{
			Config: another, Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, SIP: elect.SIPUp, Rest: elect.SIPUp}})
		for _, v := range m.Status().Nodes[1].Views {
			if v.Node == "c" {
				return v.SIP
			}
		}
		return elect.SIPUnknown
	}
	if got := says(); got != elect.SIPUnknown {
		t.Errorf("of a node of another file: %v", got)
	}
	cfg.Digest = another
	m.Step(1e12, elect.Reconfigure{Config: cfg})
	if got := says(); got != elect.SIPUp {
		t.Errorf("once the file is the same: %v", got)
	}
}
