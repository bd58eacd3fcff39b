package sim

import (
	"fmt"
	"time"

	"sipalive/elect"
)

// Judge judges a run by the global clock. It looks at kernels, disks and voters' promises,
// never at what a machine believes of itself.
type Judge struct {
	Violations []string
	Moves      int // takeovers, including each VIP's first holder
	Unshared   int // leases judged
	Obtained   int // how often a lock was obtained
	Kept       int // how often a lock was kept for a node that had gone

	w     *World
	vips  []judgedVIP
	ghost [][]promise // by node and VIP: what a voter had promised when its agent died
	ran   []stretch   // by node: its agent's last run
	live  liveness

	forgotten bool // a node lost its runtime directory, last at forgotAt
	forgotAt  Time
	// guards are the locks that are kept for one node, by VIP.
	guards []guard
}

type judgedVIP struct {
	epoch  elect.Epoch // the highest epoch under which it was ever held
	holder *Node       // the last holder
	at     Time        // when the holder acquired or raised that epoch
	moves  int
	lost   bool // a node lost its memory before every disk can have had the epoch
}

// promise is a voter's grant on the global clock.
type promise struct {
	holder   elect.Node
	instance elect.Instance
	until    Time
}

// stretch is the time in which an agent ran.
type stretch struct{ start, end Time }

func (j *Judge) init(w *World) {
	j.w = w
	j.vips = make([]judgedVIP, len(w.VIPs))
	j.guards = make([]guard, len(w.VIPs))
	j.ghost = make([][]promise, len(w.Nodes))
	j.ran = make([]stretch, len(w.Nodes))
	for i := range j.ghost {
		j.ghost[i] = make([]promise, len(w.VIPs))
	}
}

func (j *Judge) violate(format string, args ...any) {
	text := fmt.Sprintf("%s: ", j.w.Now) + fmt.Sprintf(format, args...)
	j.w.tracef("VIOLATION %s", text)
	j.Violations = append(j.Violations, text)
}

// holds is called when the kernel of n is told to answer for VIP i. was says whether it
// answered already, grew whether the lease was extended; before is what the kernel had
// until now.
func (j *Judge) holds(n *Node, i int, was, grew bool, before bound) {
	v, b, id := &j.vips[i], &n.bound[i], j.w.VIPs[i].ID
	if b.survivor || before.survivor {
		j.survives(n, i, was, before)
	}
	if b.survivor {
		return
	}
	if !was && j.w.Router != nil {
		j.leasedBeside(n, i)
	}
	if !was && n.effective(i) {
		for _, o := range j.w.Nodes {
			if o != n && o.effective(i) && !o.bound[i].survivor && (j.w.Fence || j.w.isLock(i) || !o.unfenced(i)) {
				j.violate("%s bound by %s (epoch %d) while %s answers for it (epoch %d)", id, n, b.epoch, o, o.bound[i].epoch)
			}
		}
		if v.holder != n || v.epoch != b.epoch {
			j.acquired(n, i)
		}
	} else if b.epoch < before.epoch {
		j.violate("%s: epoch fell from %d to %d at %s", id, before.epoch, b.epoch, n)
	}
	if b.epoch > v.epoch { // the holder raised its epoch
		v.epoch, v.at = b.epoch, j.w.Now
	}
	if (grew || before.survivor) && n.effective(i) {
		j.leased(n, i)
	}
}

// acquired judges a new holder: its epoch must be above every earlier one. There is one
// exception: epochs reach the disk some time later (§4.5), so an epoch acquired within
// seconds before a power cut may be forgotten.
func (j *Judge) acquired(n *Node, i int) {
	v, b := &j.vips[i], &n.bound[i]
	j.w.tracef("%s HOLDS %s epoch %d", n, j.w.VIPs[i].ID, b.epoch)
	if b.epoch <= v.epoch && !v.lost {
		j.violate("%s acquired by %s under epoch %d, %s had %d", j.w.VIPs[i].ID, n, b.epoch, v.holder, v.epoch)
	}
	if g := &j.guards[i]; g.node != nil {
		if j.w.Now >= g.until {
			*g = guard{}
		} else if g.node != n {
			j.violate("%s obtained by %s while it is kept for %s", j.w.VIPs[i].ID, n, g.node)
		}
	}
	switch {
	case j.w.isLock(i):
		j.Obtained++
	case v.holder != n || v.epoch != b.epoch:
		j.Moves++
		v.moves++
	}
	if b.epoch > v.epoch {
		// A voter that granted this epoch may have lost the record of its grant since.
		v.epoch, v.lost = b.epoch, j.forgotten && j.w.Now < j.forgotAt+Time(n.Config.Lease)
	}
	v.holder, v.at = n, j.w.Now
}

// reinstalled notes that what only that node's disk knew is lost for good.
func (j *Judge) reinstalled() {
	for i := range j.vips {
		j.vips[i].lost = true
	}
}

// joined notes that a VIP has come into a node's file. While its file lacked the VIP, the
// node may have heard of none of the VIP's epochs.
func (j *Judge) joined(vip int) { j.vips[vip].lost = true }

// diskWindow is the time in which a new epoch reaches every disk. A write already under
// way does not contain it, the next one does.
const diskWindow = 2 * slowestDisk

// forgot notes that n's runtime directory is about to be lost. An epoch is lost with it
// if only that directory had it, because n's agent has not run long enough since to write
// it to the disk.
func (j *Judge) forgot(n *Node) {
	j.forgotten, j.forgotAt = true, j.w.Now
	ran := j.ran[n.Index]
	for i := range j.vips {
		v := &j.vips[i]
		unwritten := n.knew(i) >= v.epoch && ran.end < max(v.at, ran.start)+Time(diskWindow)
		if j.w.Now < v.at+Time(diskWindow) || unwritten {
			v.lost = true
		}
	}
}

// leased judges an extended lease: a majority of the holder's list must have promised it.
// Each of these promises must be stored and must last at least as long as the lease.
func (j *Judge) leased(n *Node, i int) {
	j.Unshared++
	id, end := j.w.VIPs[i].ID, n.global(n.bound[i].until)
	list := n.Machine.Lists().Active
	votes := 0
	for _, o := range j.w.Nodes {
		if !list.Has(o.Name) {
			continue
		}
		if p := j.promise(o, i); p.holder == n.Name && p.instance == n.instance && p.until >= end {
			votes++
		}
	}
	if votes < list.Majority() {
		j.violate("%s: lease of %s until %s with %d of %d promises", id, n, end, votes, len(list))
	}
}

func (j *Judge) promise(o *Node, i int) promise {
	if o.Machine == nil {
		return j.ghost[o.Index][i]
	}
	id := j.w.VIPs[i].ID
	g, until, ok := o.Machine.Vote(id)
	if !ok || o.Runtime == nil {
		return j.ghost[o.Index][i]
	}
	s := o.Runtime.VIPs[id].Grant
	// If a raised epoch could not be stored, the promise still stands: the stored grant
	// names the same holder.
	if s == nil || s.Holder != g.Holder || s.Instance != g.Instance || s.Lease < g.Lease {
		return promise{} // not stored, so not given
	}
	return promise{g.Holder, g.Instance, o.global(until)}
}

func (j *Judge) killed(n *Node) {
	j.ran[n.Index].end = j.w.Now
	for i := range j.w.VIPs {
		j.ghost[n.Index][i] = j.promise(n, i)
	}
}

// started notes an agent's start. A voter that lost its record, or is still quiet, stays
// bound by what it promised before.
func (j *Judge) started(n *Node) {
	j.ran[n.Index].start = j.w.Now
	if n.Runtime != nil && n.local() >= n.Runtime.QuietUntil {
		clear(j.ghost[n.Index])
	}
}

func (j *Judge) unbound(n *Node, i int) {
	j.w.tracef("%s UNBOUND %s", n, j.w.VIPs[i].ID)
}

func (j *Judge) stepped(n *Node, eff *elect.Effects) { j.live.stepped(n, eff) }

// liveness judges that every VIP is held while the cluster can hold it.
type liveness struct {
	bound     time.Duration // how long a VIP may be without a holder while the cluster could have one
	good      Time          // the time since which a majority has been well
	isGood    bool
	vacant    []Time // by VIP
	Longest   time.Duration
	steps     []int // by node, since the last look
	lastLook  Time
	stepsMost float64
	told      bool
}

// Vacant returns the longest time since Watch for which a VIP had no holder while a
// majority was well.
func (j *Judge) Vacant() time.Duration { return j.live.Longest }

// lookEvery is how often Watch looks. It does not see a shorter vacancy.
const lookEvery = 250 * time.Millisecond

// Watch starts to judge that every VIP has a holder within bound, counted from when a
// majority of voters is well and one node of it fit.
func (w *World) Watch(bound time.Duration) {
	l := &w.Judge.live
	*l = liveness{bound: bound, vacant: make([]Time, len(w.VIPs)), steps: make([]int, len(w.Nodes)), lastLook: w.Now}
	for i := range l.vacant {
		l.vacant[i] = w.Now
	}
	var look func()
	look = func() {
		l.look(w)
		w.At(lookEvery, look)
	}
	look()
}

func (l *liveness) stepped(n *Node, _ *elect.Effects) {
	if l.steps != nil {
		l.steps[n.Index]++
	}
}

// waited discounts the events that waited for a frozen node, and the answers to them: the
// node handles them all at once when it thaws. That is no spinning, neither of this node
// nor of those that get the answers.
func (l *liveness) waited(n *Node, backlog []delivery) {
	if l.steps == nil {
		return
	}
	l.steps[n.Index] -= len(backlog)
	for _, d := range backlog {
		if d.ev == nil {
			l.steps[n.w.Node(d.h.From).Index]--
		}
	}
}

func (l *liveness) look(w *World) {
	for i, n := range l.steps {
		rate := float64(n) / lookEvery.Seconds()
		l.stepsMost = max(l.stepsMost, rate)
		if most := float64(4000 + 1000*len(w.VIPs)); rate > most && !w.Nodes[i].paused {
			w.Judge.violate("%s spins: %.0f steps per second", w.Nodes[i], rate)
		}
		l.steps[i] = min(n, 0) / 2 // the answers may come just after this look
	}
	good := w.healthy()
	if good && !l.isGood {
		l.good = w.Now
	}
	l.isGood = good
	for i := range w.VIPs {
		if w.holder(i) != nil || w.isLock(i) {
			l.vacant[i] = w.Now
			continue
		}
		since := max(l.vacant[i], l.good)
		if !good {
			continue
		}
		d := time.Duration(w.Now - since)
		l.Longest = max(l.Longest, d)
		if d > l.bound && !l.told {
			l.told = true
			w.Judge.violate("%s has had no holder for %s though a majority was well", w.VIPs[i].ID, d)
		}
	}
}

// healthy reports whether a majority of voters is well: every pair of them can talk both
// ways, and one node among them is fit beyond doubt.
func (w *World) healthy() bool {
	voters := 0
	var ok, holder uint
	for _, n := range w.Nodes {
		c := n.Config.Nodes[n.Index]
		if c.Voter {
			voters++
		}
		if n.Machine == nil || n.paused || n.StoreFails || n.stopping {
			continue
		}
		if n.Machine.Lists().Active == nil {
			continue // a node that starts for the first time waits for every node (§4.9)
		}
		ok |= 1 << n.Index
		if c.Holder && n.PBX == elect.SIPUp && !n.BindFails && !n.VerifyFails && len(n.over) == 0 && !w.doubted(n) {
			holder |= 1 << n.Index
		}
	}
	links := make([]uint, len(w.Nodes))
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			if a == b || a.walls+b.walls == 0 && a.cut[b.Index] == 0 && b.cut[a.Index] == 0 && a.loss[b.Index] < 0.5 && b.loss[a.Index] < 0.5 {
				links[a.Index] |= 1 << b.Index
			}
		}
	}
	for set := uint(1); set < 1<<len(w.Nodes); set++ {
		if set&ok != set || set&holder == 0 {
			continue
		}
		n, linked := 0, true
		for _, a := range w.Nodes {
			if set&(1<<a.Index) == 0 {
				continue
			}
			if a.Config.Nodes[a.Index].Voter {
				n++
			}
			linked = linked && set&links[a.Index] == set
		}
		if linked && n > voters/2 {
			return true
		}
	}
	return false
}

func (w *World) doubted(n *Node) bool {
	for _, o := range w.Nodes {
		if o.blind[n.Index] {
			return true
		}
	}
	return false
}
