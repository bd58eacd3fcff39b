package elect_test

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sipalive/elect"
)

// listOf is the voter list of the nodes in a set.
func listOf(set uint) elect.VoterList {
	var names []elect.Node
	for i := range 6 {
		if set&(1<<i) != 0 {
			names = append(names, elect.Node(rune('a'+i)))
		}
	}
	return elect.NewVoterList(names...)
}

// disjoint reports whether a majority of x (mx voters) and one of y (my voters) can share
// no voter.
func disjoint(x, y uint, mx, my int) bool {
	free := func(set, other uint, m int) int { return max(0, m-bits.OnesCount(set&^other)) }
	// Each majority first takes the voters that only its own list has, then voters of
	// both lists.
	return free(x, y, mx)+free(y, x, my) <= bits.OnesCount(x&y)
}

// TestAdjacentLists: adjacency is symmetric, and any two majorities of equal or adjacent
// lists share a voter. That is the purpose of adjacency (§4.9).
func TestAdjacentLists(t *testing.T) {
	apart := 0
	for x := uint(1); x < 1<<6; x++ {
		for y := uint(1); y < 1<<6; y++ {
			a, b := listOf(x), listOf(y)
			near := a.Adjacent(b)
			if near != b.Adjacent(a) || near != (bits.OnesCount(x^y) == 1) || a.Equal(b) != (x == y) {
				t.Fatalf("%v and %v: adjacent %v and %v, equal %v", a, b, near, b.Adjacent(a), a.Equal(b))
			}
			split := disjoint(x, y, a.Majority(), b.Majority())
			if split && (near || x == y) {
				t.Fatalf("%v and %v are equal or adjacent, and have majorities that share nobody", a, b)
			}
			if split {
				apart++
			}
		}
	}
	if apart == 0 {
		t.Fatal("no two lists have majorities apart: nothing was tested")
	}
}

// watched is machine a, with one list on disk and another in its file, which hears what a
// test draws. It keeps its own account of what a has heard.
type watched struct {
	m      *elect.Machine
	now    elect.Instant
	active uint
	file   uint
	heard  map[int]report // the newest report of each node
	took   bool
}

type report struct {
	at           elect.Instant
	file, active uint // 0: none
}

func lists(r report) elect.Lists {
	l := elect.Lists{File: listOf(r.file)}
	if r.active != 0 {
		l.Active = listOf(r.active)
	}
	return l
}

// inUse reports whether a majority of the active list's voters is heard to use that list,
// or the file's.
func (w *watched) inUse() bool {
	n := 0
	for i := range 6 {
		if w.active&(1<<i) == 0 {
			continue
		}
		r, known := w.heard[i]
		if i == 0 || known && w.now < r.at.Add(time.Second) && (r.active == w.active || r.active == w.file) {
			n++
		}
	}
	return n > bits.OnesCount(w.active)/2
}

// TestListIsInUseBeforeItIsLeft: whatever a node hears, it writes its file's list to disk
// only if that list is adjacent to the active one, and only while a majority of the
// active list is heard to use either.
func TestListIsInUseBeforeItIsLeft(t *testing.T) {
	left := 0
	rapid.Check(t, func(t *rapid.T) {
		w := &watched{heard: map[int]report{}, now: started}
		set := func(name string) uint { return uint(rapid.IntRange(0, 1<<5-1).Draw(t, name))<<1 | 1 }
		w.active, w.file = set("active"), set("file")
		if rapid.Bool().Draw(t, "next to it") {
			w.file = w.active ^ 1<<rapid.IntRange(1, 5).Draw(t, "by")
		}
		cfg := elect.Config{Self: "a", Heartbeat: 200 * time.Millisecond, Lease: time.Second, Settle: time.Second, Stagger: 50 * time.Millisecond}
		for i := range 6 {
			cfg.Nodes = append(cfg.Nodes, elect.NodeConfig{Name: elect.Node(rune('a' + i)), Voter: w.file&(1<<i) != 0, Holder: true})
		}
		m, err := elect.New(cfg, elect.Restored{Durable: &elect.Durable{Active: listOf(w.active), LongestLease: time.Second}}, 1, w.now, rand.New(rand.NewPCG(1, 2)))
		if err != nil {
			t.Fatal(err)
		}
		w.m = m
		m.Step(w.now, elect.Tick{})
		for i := range 40 {
			w.hear(t, i)
			if w.took {
				left++
				return
			}
		}
	})
	if left == 0 {
		t.Error("no list was ever taken: nothing was tested")
	}
}

// hear lets up to 300 ms pass and then delivers one node's heartbeat.
func (w *watched) hear(t *rapid.T, seq int) {
	end := w.now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
	for w.now < end {
		w.now = min(end, max(w.m.Deadline(), w.now+1))
		w.judge(t, w.m.Step(w.now, elect.Tick{}))
	}
	i := rapid.IntRange(1, 5).Draw(t, "from")
	some := func(name string) uint {
		if rapid.IntRange(0, 9).Draw(t, name) == 0 {
			return uint(rapid.IntRange(1, 1<<6-1).Draw(t, name+" other"))
		}
		return rapid.SampledFrom([]uint{w.active, w.file}).Draw(t, name)
	}
	w.heard[i] = report{at: w.now, file: some("its file"), active: some("its active")}
	w.judge(t, w.m.Step(w.now, elect.Received{From: elect.Node(rune('a' + i)), Instance: elect.Instance(i + 1), Seq: elect.Seq(seq + 1),
		Msg: elect.Heartbeat{Lists: lists(w.heard[i]), Lease: time.Second}}))
}

func (w *watched) judge(t *rapid.T, eff elect.Effects) {
	if eff.Durable == nil {
		return
	}
	if !eff.Durable.Active.Equal(listOf(w.active)) {
		w.took = true
		if bits.OnesCount(w.active^w.file) != 1 {
			t.Fatalf("%v is left for %v", listOf(w.active), eff.Durable.Active)
		}
		if !w.inUse() {
			t.Fatalf("%v is left for %v, in use by no majority of it: %+v", listOf(w.active), eff.Durable.Active, w.heard)
		}
	}
	w.m.Step(w.now, elect.Stored{Version: eff.Durable.Version})
}
