package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"sipalive/elect"
)

// Lists is a run in which files change which nodes are voters: one file at a time or
// several at once, out of order, in partitions, with crashes, reinstalled nodes and VIPs
// that are held meanwhile. At the end all files say the same, everything is healed, and
// every VIP must be held again.
type Lists struct {
	Scenario
	edits []edit
	final []bool // by node: whether the last file makes it a voter
	live  bool   // files are also reloaded while agents run, and change more than the voters
}

// edit writes one node's file. The node reads it when it starts next, or, if live, at
// once.
type edit struct {
	at     time.Duration
	node   int
	voters []bool
	lost   bool // the node is reinstalled: both of its directories are lost
	live   bool

	members []bool        // by node: whether the file names it; nil: all
	vips    []bool        // by VIP: whether the file names it; nil: all
	lease   time.Duration // 0: unchanged
}

// NewLists draws a run from a seed.
func NewLists(seed uint64) Lists {
	r := rand.New(rand.NewPCG(seed, 0x11575))
	nodes := 3 + r.IntN(4)
	s := Lists{Scenario: NewScenario(seed, nodes, 6*time.Minute)}
	T := s.longest()
	kinds := []FaultKind{CutPair, CutOneWay, Isolate, Partition, Partition, Bridge, ThreeWay, Lossy, Freeze, Crash, Crash, CrashStoring, PowerCut,
		MoveVIP, SlowDisk, Straggling, Duplicating}
	s.Faults = nil
	for at := time.Duration(0); at < s.Duration; at += time.Duration(r.Int64N(int64(8 * T))) {
		f := randomFault(r, nodes, len(s.Config.VIPs), T, kinds)
		f.At, f.For = at, min(f.For, s.Duration-at)
		s.Faults = append(s.Faults, f)
	}
	list := randomVoters(r, nodes)
	for i := range nodes {
		s.Config.Nodes[i].Voter, s.Config.Nodes[i].Holder = list[i], true
	}
	quick := r.IntN(2) == 0 // files change faster than any node can follow
	for at := 10 * T; at < s.Duration; {
		if r.IntN(3) == 0 {
			list = randomVoters(r, nodes) // a careless change: many voters at once
		} else {
			list = slices.Clone(list)
			if i := r.IntN(nodes); !list[i] || count(list) > 1 {
				list[i] = !list[i]
			}
		}
		for _, i := range r.Perm(nodes) {
			if r.IntN(8) == 0 {
				continue // this file is forgotten
			}
			s.edits = append(s.edits, edit{at: at, node: i, voters: list, lost: r.IntN(40) == 0})
			gap := 4 * T
			if quick {
				gap = T
			}
			at += time.Duration(r.Int64N(int64(gap)))
		}
		if !quick {
			at += time.Duration(r.Int64N(int64(10 * T)))
		}
	}
	s.final = list
	return s
}

func randomVoters(r *rand.Rand, nodes int) []bool {
	l := make([]bool, nodes)
	for count(l) < min(2, nodes) {
		for i := range l {
			l[i] = r.IntN(3) > 0
		}
	}
	return l
}

func count(l []bool) (n int) {
	for _, v := range l {
		if v {
			n++
		}
	}
	return n
}

// Run makes the edits amid the faults. An operator adopts the list only at the end, when
// all files say the same and nothing is cut.
func (s Lists) Run(trace func(string)) Result {
	w := s.World()
	w.Trace = trace
	w.tracef("%s", s.Scenario)
	w.Start()
	for _, f := range s.Faults {
		w.Apply(f)
	}
	for _, e := range s.edits {
		w.At(e.at, func() { w.edit(e) })
	}
	stop := func() bool { return len(w.Judge.Violations) > 0 }
	if !w.RunUntil(s.Duration+time.Second, stop) {
		s.converge(w, stop)
	}
	return Result{Violations: w.Judge.Violations, Simulated: time.Duration(w.Now), Moves: w.Judge.Moves, Leases: w.Judge.Unshared, Steps: w.Steps}
}

func (w *World) edit(e edit) {
	n := w.Nodes[e.node]
	w.tracef("EDIT %s: voters %v lost %v", n, e.voters, e.lost)
	w.write(n, e)
	if n.Machine == nil || n.paused {
		return // it reads the file when it starts
	}
	if e.live {
		n.Reload()
		return
	}
	n.Kill()
	if e.lost {
		// Reinstalled: it stays off for longer than any lease that it may have granted.
		n.PowerOff()
		n.Durable = nil
		w.Judge.reinstalled()
		w.At(4*n.Config.Lease*3, n.PowerOn)
		return
	}
	n.Start()
}

// write writes the edit into the node's file.
func (w *World) write(n *Node, e edit) {
	before := n.Config.VIPs
	n.Config.Nodes, n.Config.VIPs = nil, nil
	for i, c := range w.all.Nodes {
		if e.members == nil || e.members[i] || i == n.Index {
			c.Voter = e.voters[i]
			n.Config.Nodes = append(n.Config.Nodes, c)
		}
	}
	for i, v := range w.all.VIPs {
		if e.vips == nil || e.vips[i] {
			n.Config.VIPs = append(n.Config.VIPs, v)
			if !slices.ContainsFunc(before, func(b elect.VIPConfig) bool { return b.ID == v.ID }) {
				w.Judge.joined(i)
			}
		}
	}
	if e.lease != 0 {
		n.Config.Lease = e.lease
	}
}

func (s Lists) converge(w *World, stop func() bool) {
	w.Heal()
	for i := range w.Nodes {
		w.edit(edit{node: i, voters: s.final, lease: s.lease(i), live: s.live && i%2 == 0})
	}
	if w.RunUntil(s.Bound(), stop) {
		return
	}
	for _, n := range w.Nodes {
		n.Do(elect.Command{Kind: elect.CommandAdopt})
	}
	if w.RunUntil(s.Bound()+s.Config.Exclude, stop) {
		return
	}
	want := w.Nodes[0].Machine.Lists().File
	for _, n := range w.Nodes {
		if l := n.Machine.Lists(); !l.Active.Equal(want) {
			w.Judge.violate("%s still uses %v, every file says %v", n, l.Active, want)
		}
	}
	if !w.AllHeld() {
		w.Judge.violate("not every VIP is held %s after the lists agree", s.Bound())
	}
}
