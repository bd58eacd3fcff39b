package elect_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sipalive/elect"
)

// said are the verdicts of all nodes about all PBXes: said[i][j] is i's about j's.
type said [][]elect.SIPState

func drawSaid(t *rapid.T, n int) said {
	s := make(said, n)
	for i := range s {
		for range n {
			s[i] = append(s[i], rapid.SampledFrom([]elect.SIPState{elect.SIPUp, elect.SIPUp, elect.SIPSuspect, elect.SIPSilent, elect.SIPUnready, elect.SIPRefused}).Draw(t, "verdict"))
		}
	}
	return s
}

// unfitSeen tells which nodes the node self calls unfit, after it has heard all nodes but
// the silent ones.
func (s said) unfitSeen(t *rapid.T, self int, silent []bool) []bool {
	cfg := elect.Config{Heartbeat: 200 * time.Millisecond, Lease: time.Second, Settle: time.Second, Stagger: 50 * time.Millisecond,
		PrepareTimeout: time.Second}
	for i := range s {
		cfg.Nodes = append(cfg.Nodes, elect.NodeConfig{Name: elect.Node(rune('a' + i)), Voter: true, Holder: true})
	}
	cfg.Self = cfg.Nodes[self].Name
	m, err := elect.New(cfg, elect.Restored{}, 1, started, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range cfg.Nodes {
		m.Step(started, elect.Health{Node: n.Name, SIP: s[self][i]})
		if i == self || silent[i] {
			continue
		}
		b := elect.Heartbeat{Lease: time.Second, SIP: s[i][i]}
		for j, o := range cfg.Nodes {
			if j != i {
				b.Observes = append(b.Observes, elect.Observation{Node: o.Name, SIP: s[i][j]})
			}
		}
		m.Step(started, elect.Received{From: n.Name, Instance: 7, Seq: 1, Msg: b})
	}
	var out []bool
	for _, n := range m.Status().Nodes {
		out = append(out, n.Unfit != "")
	}
	return out
}

func drawSilent(t *rapid.T, n int) []bool {
	silent := make([]bool, n)
	for i := 1; i < n; i++ {
		silent[i] = rapid.IntRange(0, 4).Draw(t, "silent") == 0
	}
	return silent
}

// TestFitness compares the fitness of §4.7 with a second implementation, and the view of
// every node with that of the others.
func TestFitness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "nodes")
		s, silent := drawSaid(t, n), drawSilent(t, n)
		unfit := s.unfitSeen(t, 0, silent)
		for i := 1; i < n; i++ {
			if got := s.unfitSeen(t, i, silent); !silent[i] && !slices.Equal(got, unfit) {
				t.Fatalf("node %d sees unfit %v, node 0 %v", i, got, unfit)
			}
		}
		for j := range n {
			if want := s.unfit(j, silent); !silent[j] && unfit[j] != want {
				t.Fatalf("node %d is unfit: %v, by the rules %v; silent %v, verdicts %v", j, unfit[j], want, silent, s)
			}
		}
	})
}

// unfit is the second implementation of the rule, for node j.
func (s said) unfit(j int, silent []bool) bool {
	live, down, doubt := 0, 0, 0
	for i := range s {
		if i == j || silent[i] {
			continue
		}
		live++
		if s[i][j].Down() {
			down++
		}
		if s[i][j].Doubted() {
			doubt++
		}
	}
	switch s[j][j] {
	case elect.SIPUnready, elect.SIPRefused: // each decides alone
		return true
	case elect.SIPSilent: // needs another node's doubt, or no live other node
		return doubt > 0 || live == 0
	}
	// Every live node but j itself says so, and they are a majority of the others.
	return down == live && 2*live > len(s)-1
}

// TestWorseIsNeverFitter: a verdict about a node that turns from good to bad never makes
// that node fit.
func TestWorseIsNeverFitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "nodes")
		s, silent := drawSaid(t, n), drawSilent(t, n)
		i, j := rapid.IntRange(0, n-1).Draw(t, "observer"), rapid.IntRange(0, n-1).Draw(t, "observed")
		s[i][j] = elect.SIPUp
		before := s.unfitSeen(t, 0, silent)
		s[i][j] = rapid.SampledFrom([]elect.SIPState{elect.SIPSuspect, elect.SIPSilent, elect.SIPUnready, elect.SIPRefused}).Draw(t, "worse")
		if after := s.unfitSeen(t, 0, silent); before[j] && !after[j] {
			t.Fatalf("%d says %s of %d instead of up, which makes that node fit", i, s[i][j], j)
		}
	})
}
