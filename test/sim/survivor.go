package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sipalive/elect"
)

// These faults happen around the router (§4.6). A node is a host on a switch port: a cut
// between nodes need not cut them from the router.
const (
	PortIsolated FaultKind = faultKinds + iota // A reaches only the router
	AllIsolated                                // every node reaches only the router
	PairSevered                                // A and B do not reach each other, but everybody else
	SplitKept                                  // Set is cut from the rest; both sides reach the router
	SplitLost                                  // Set is cut from the rest and from the router
	HostSilent                                 // A reaches nobody
	RouterDeaf                                 // the router does not hear A
	RouterMute                                 // A does not hear the router
	RouterDown
	RouterLossy // loses ARP, pings and relayed packets
	HostDead    // A
	HostsDead   // Set
	HostRebooted
	Firewalled // A's agent exchanges packets with no other agent, by any way; ARP and ping pass
	routerKindEnd
)

var routerFaultNames = [routerKindEnd - faultKinds]string{"port isolated", "all ports isolated", "pair severed", "split, both with the router",
	"split, one without the router", "host silent", "router deaf for a node", "router mute for a node", "router down", "router lossy",
	"host dead", "hosts dead", "host rebooted", "firewalled"}

func (w *World) beginRouter(f Fault, a, b *Node) func() {
	r := w.Router
	only := func(x *Node) bool { return x == a }
	switch f.Kind {
	case PortIsolated:
		return w.cutAll(func(x, y *Node) bool { return x == a || y == a })
	case AllIsolated:
		return w.cutAll(func(x, y *Node) bool { return true })
	case PairSevered:
		return w.cutAll(func(x, y *Node) bool { return x == a && y == b || x == b && y == a })
	case SplitKept, SplitLost:
		undo := w.cutAll(func(x, y *Node) bool { return f.in(x) != f.in(y) })
		if f.Kind == SplitKept {
			return undo
		}
		off := r.cut(f.in, true, true)
		return func() { undo(); off() }
	case HostSilent:
		undo, off := w.cutAll(func(x, y *Node) bool { return x == a || y == a }), r.cut(only, true, true)
		return func() { undo(); off() }
	case RouterDeaf:
		return r.cut(only, true, false)
	case RouterMute:
		return r.cut(only, false, true)
	case RouterDown:
		r.Down = true
		return func() { r.Down = false }
	case RouterLossy:
		return w.worsen(&r.Loss, 0.25*f.P)
	}
	if f.Kind == Firewalled {
		a.Wall(true)
		return func() { a.Wall(false) }
	}
	dead := []*Node{a}
	if f.Kind == HostsDead {
		dead = nil
		for _, n := range w.Nodes {
			if f.in(n) {
				dead = append(dead, n)
			}
		}
	}
	for _, n := range dead {
		n.PowerOff()
	}
	return func() {
		for _, n := range dead {
			w.At(time.Duration(r.rand.Int64N(int64(2*time.Second))), n.PowerOn)
		}
	}
}

func (r *Router) cut(which func(*Node) bool, up, down bool) func() {
	by := func(d int) {
		for _, n := range r.w.Nodes {
			if which(n) && up {
				r.up[n.Index] += d
			}
			if which(n) && down {
				r.down[n.Index] += d
			}
		}
	}
	by(1)
	return func() { by(-1) }
}

// survives judges what a survivor does: how it came to hold, and how its hold became a
// lease.
func (j *Judge) survives(n *Node, i int, was bool, before bound) {
	v, b, r, id := &j.vips[i], &n.bound[i], j.w.Router, j.w.VIPs[i].ID
	switch {
	case !b.survivor:
		r.back++
		j.w.tracef("%s HOLDS %s epoch %d, again by lease", n, id, b.epoch)
		if b.epoch <= v.epoch && !v.lost || b.epoch <= before.epoch {
			j.violate("%s: the lease of %s has epoch %d after %d, and %d as a survivor", id, n, b.epoch, v.epoch, before.epoch)
		}
		v.holder, v.at = n, j.w.Now
	case was && before.survivor:
	case was:
		r.inPlace++
		j.w.tracef("%s SURVIVES with %s epoch %d", n, id, b.epoch)
		if l := n.Machine.Lists().Active; len(l) != 2 {
			j.violate("%s: %s outlives a majority of %v", id, n, l)
		}
	default:
		r.taken++
		j.w.tracef("%s HOLDS %s epoch %d, as a survivor", n, id, b.epoch)
		j.Moves++
		v.moves++
		v.holder, v.at = n, j.w.Now
		if n.Config.Survivor == elect.SurvivorNever {
			j.violate("%s: %s survives, and may never", id, n)
		}
		for _, o := range j.w.Nodes {
			// A holder that the router sees again only since a moment cannot be known
			// yet.
			if o != n && r.Relays && r.sees(n, i) && r.sees(o, i) && j.w.Now > max(r.seen[i][o.Index], r.parted)+Time(r.newly) {
				j.violate("%s taken by survivor %s while %s has it since %s and the router relays", id, n, o, r.seen[i][o.Index])
			}
		}
	}
	if end := n.global(b.until); b.survivor && end > j.w.Now+Time(evidenceMost) && end > n.global(before.until) {
		j.violate("%s: survivor %s holds until %s, further than any evidence", id, n, end)
	}
}

// leasedBeside judges a lease that begins while the router sees a survivor: a node that
// comes back must hear of the survivor before it gets a lease.
func (j *Judge) leasedBeside(n *Node, i int) {
	r := j.w.Router
	for _, o := range j.w.Nodes {
		// Behind a firewall, the survivor hears only the new holder's announcement, and
		// yields to that.
		if o != n && o.bound[i].survivor && n.walls+o.walls == 0 && r.Relays && r.sees(n, i) && r.sees(o, i) &&
			j.w.Now > max(r.seen[i][o.Index], r.linked[n.Index], r.parted)+Time(r.newly) {
			j.violate("%s leased to %s while survivor %s has it since %s and the router relays", j.w.VIPs[i].ID, n, o, r.seen[i][o.Index])
		}
	}
}

// evidenceMost is how long one answer of the router may count (§4.6), plus the drift of
// the fastest clock.
const evidenceMost = 501 * time.Millisecond

// glance is how often WatchRouter looks.
const glance = 5 * time.Millisecond

// WatchRouter judges what the router sees. It may see two owners of a VIP for at most
// relayed where it relays, and for at most alone where it does not. A survivor may hold
// only while the router keeps answering it.
func (w *World) WatchRouter(relayed, alone time.Duration) {
	r := w.Router
	r.newly = relayed
	since := make([]Time, len(w.VIPs))
	last := make([]Time, len(w.VIPs)*len(w.Nodes))
	var look func()
	look = func() {
		most, kind := relayed, 0
		if !r.Relays {
			most, kind = alone, 1
		}
		if w.parted() {
			r.parted = w.Now
		}
		for i, n := range w.Nodes {
			if r.Down || r.up[i] > 0 || r.down[i] > 0 || n.Machine == nil || n.paused {
				r.linked[i] = w.Now
			}
		}
		for i := range w.VIPs {
			seen := 0
			for _, n := range w.Nodes {
				if r.sees(n, i) {
					seen++
				} else {
					r.seen[i][n.Index] = w.Now
				}
				// Count how long it has held as a survivor without an answer of the
				// router.
				at := &last[i*len(w.Nodes)+n.Index]
				if !n.effective(i) || !n.bound[i].survivor {
					*at = w.Now
				} else if w.Now > max(*at, r.answered[i][n.Index])+Time(evidenceMost+2*glance) {
					w.Judge.violate("%s: survivor %s holds though the router has not answered it since %s", w.VIPs[i].ID, n, max(*at, r.answered[i][n.Index]))
				}
			}
			if seen < 2 || r.parted == w.Now {
				since[i] = 0
				continue
			}
			if since[i] == 0 {
				since[i] = w.Now
				r.overlaps[kind]++
				w.tracef("TWO OWNERS of %s: %v", w.VIPs[i].ID, w.Holders(w.VIPs[i].ID))
			}
			d := time.Duration(w.Now - since[i])
			r.longest[kind] = max(r.longest[kind], d)
			if d > most {
				w.Judge.violate("%s: the router sees two owners for %s: %v", w.VIPs[i].ID, d, w.Holders(w.VIPs[i].ID))
			}
		}
		w.At(glance, look)
	}
	look()
}

// Survivors is a run with faults around the router: hosts die, switches split, the router
// loses frames. At the end all nodes but one die and come back.
type Survivors struct {
	Scenario
	Relays bool
}

// SurvivorResult adds to Result what the survivors did.
type SurvivorResult struct {
	Result
	Taken, InPlace, Back int
	Overlaps             [2]int           // how often the router saw two owners: [0] where it relays, [1] where it does not
	Longest              [2]time.Duration // the longest of these overlaps
	Alone                time.Duration    // the longest time from the death of all others until the last node held the VIPs
}

// NewSurvivors draws a run from a seed; with nodes 0 it draws the size too.
func NewSurvivors(seed uint64, nodes int) Survivors {
	r := rand.New(rand.NewPCG(seed, 0x5a1e))
	if nodes == 0 {
		nodes = []int{2, 2, 3, 3, 3, 4, 5}[r.IntN(7)]
	}
	s := Survivors{Scenario: NewScenario(seed, nodes, 0), Relays: r.IntN(3) > 0}
	s.Duration, s.NoFence, s.Leases = 5*time.Minute, false, nil
	s.Config.Survivor, s.Config.SurvivorAfter = elect.SurvivorAuto, 3*time.Second
	if r.IntN(6) == 0 {
		s.Config.Survivor = elect.SurvivorAlways
	}
	for i := range s.Config.VIPs {
		s.Config.VIPs[i].Announced, s.Config.VIPs[i].Relayed = !s.Config.VIPs[i].Role, true
	}
	kinds := make([]FaultKind, 1+r.IntN(5))
	others := []FaultKind{Lossy, Freeze, FreezeOften, Crash, CrashLost, CrashStoring, PBXDead, MoveVIP, DrainNode, StopAgent, Deaf, Mute, CutOneWay, Bridge,
		Straggling, Duplicating}
	for i := range kinds {
		if kinds[i] = faultKinds + FaultKind(r.IntN(int(routerKindEnd-faultKinds))); r.IntN(4) == 0 {
			kinds[i] = others[r.IntN(len(others))]
		}
	}
	s.draw(r, kinds)
	return s
}

// draw replaces the faults by random ones of these kinds.
func (s *Survivors) draw(r *rand.Rand, kinds []FaultKind) {
	T := s.Config.Lease
	gap := T + time.Duration(r.Int64N(int64(12*time.Second)))
	s.Faults = nil
	for at := 15 * time.Second; at < s.Duration; at += time.Duration(r.Int64N(int64(2 * gap))) {
		f := randomFault(r, len(s.Config.Nodes), len(s.Config.VIPs), T, kinds)
		f.At = at
		if f.Kind == Lossy {
			f.P *= 0.5 // 20 % at most: with more loss, silence proves little
		}
		if r.IntN(2) == 0 {
			f.For = time.Duration(r.Int64N(int64(15 * time.Second))) // long enough for a survivor to take over
		}
		f.For = min(f.For, s.Duration-at)
		s.Faults = append(s.Faults, f)
	}
}

// relayed are the faults under which a router that relays shows every node all other
// nodes that the router itself reaches. RouterLossy belongs to them up to a fifth of the
// frames.
var relayed = []FaultKind{PortIsolated, AllIsolated, PairSevered, SplitKept, HostDead, HostsDead, HostRebooted, RouterLossy}

// NewRelayed draws a run with only the faults of relayed, around a router that relays.
func NewRelayed(seed uint64, nodes int) Survivors {
	s := NewSurvivors(seed, nodes)
	r := rand.New(rand.NewPCG(seed, 0x5a1f))
	s.Relays, s.Config.Survivor = true, elect.SurvivorAuto
	kinds := make([]FaultKind, 1+r.IntN(4))
	for i := range kinds {
		kinds[i] = relayed[r.IntN(len(relayed))]
	}
	s.draw(r, kinds)
	for i := range s.Faults {
		s.Faults[i].P *= 0.8
	}
	return s
}

// never reports whether two owners must never show: the router relays, and only faults
// against which the relay helps occur.
func (s Survivors) never() bool {
	return s.Relays && s.Config.Survivor == elect.SurvivorAuto && !slices.ContainsFunc(s.Faults, func(f Fault) bool {
		return !slices.Contains(relayed, f.Kind) || f.Kind == RouterLossy && f.P > 0.8
	})
}

// bounds returns how long the router may see two owners: where it relays, and where it
// does not.
func (s Survivors) bounds() (relayed, alone time.Duration) {
	// When the router sees a holder again, the others hear of it by its next heartbeat,
	// or by its answer to the next question. A few of these may be lost.
	relayed = 2*(s.Config.Heartbeat+125*time.Millisecond) + glance
	if slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.Kind == Firewalled }) {
		relayed += time.Duration(len(s.Config.VIPs)) * 125 * time.Millisecond // only the questions help, and the VIPs take turns
	}
	if s.lossy() {
		relayed *= 4
	}
	// Two owners that do not hear each other: until the later one's announcement has
	// moved the router's table and the other one's evidence has ended. The one that was
	// there before announces again only after up to 30 s.
	return relayed, 33 * time.Second
}

func (s Survivors) lossy() bool {
	return slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.Kind == Lossy || f.Kind == RouterLossy || f.Kind == Straggling })
}

// Run runs the faults and heals everything. Then it lets all nodes but one die and come
// back.
func (s Survivors) Run(trace func(string)) SurvivorResult {
	w := s.World()
	w.Trace = trace
	r := w.AddRouter(s.Relays, s.Seed)
	w.tracef("%s, router relays %v, survivor %d", s.Scenario, s.Relays, s.Config.Survivor)
	w.Start()
	w.Watch(s.Bound())
	w.WatchRouter(s.bounds())
	for _, f := range s.Faults {
		w.Apply(f)
	}
	stop := func() bool { return len(w.Judge.Violations) > 0 }
	res := SurvivorResult{}
	if !w.RunUntil(s.Duration+time.Second, stop) {
		if s.afterwards(w, stop); !stop() {
			res.Alone = s.lastOne(w, stop)
		}
	}
	if !s.Relays && s.Config.Survivor == elect.SurvivorAuto && votersOf(s.Config) > 2 && r.taken+r.inPlace+r.overlaps[1] > 0 {
		w.Judge.violate("%d survivors, %d times two owners, though the router does not relay", r.taken+r.inPlace, r.overlaps[1])
	}
	if s.never() && r.overlaps[0] > 0 {
		w.Judge.violate("%d times two owners, the longest for %s, though the router relays and showed each to the other", r.overlaps[0], r.longest[0])
	}
	res.Result = Result{Violations: w.Judge.Violations, Simulated: time.Duration(w.Now), Moves: w.Judge.Moves, Leases: w.Judge.Unshared,
		Steps: w.Steps, Vacant: w.Judge.live.Longest, StepRate: w.Judge.live.stepsMost}
	res.Taken, res.InPlace, res.Back, res.Overlaps, res.Longest = r.taken, r.inPlace, r.back, r.overlaps, r.longest
	return res
}

func votersOf(c elect.Config) (n int) {
	for _, c := range c.Nodes {
		if c.Voter {
			n++
		}
	}
	return n
}

// lastOne lets all nodes but one die at once, or be cut off. That node must soon hold
// every VIP, if the rules allow it. It must keep them when the others come back: dead
// nodes come back one after the other, cut-off nodes all at once.
func (s Survivors) lastOne(w *World, stop func() bool) time.Duration {
	r := w.Router
	last := w.Nodes[r.rand.IntN(len(w.Nodes))]
	for !last.Config.Nodes[last.Index].Holder {
		last = w.Nodes[r.rand.IntN(len(w.Nodes))]
	}
	died, comeBack := w.Now, w.loseAllBut(last)
	may := s.Relays || s.Config.Survivor == elect.SurvivorAlways || votersOf(s.Config) == 2 && last.Config.Nodes[last.Index].Voter
	held := func() bool {
		if w.Now < died+Time(2*s.longest()) {
			return false // the lease from before may still run
		}
		for i, v := range w.VIPs {
			if !v.Role && !r.sees(last, i) {
				return false
			}
		}
		return true
	}
	most := 2*s.longest() + max(s.Config.SurvivorAfter, s.asking(w)) + 2*time.Second
	if !may {
		if w.RunUntil(30*time.Second, func() bool { return stop() || w.Router.taken+w.Router.inPlace > 0 }) {
			return 0
		}
	} else if !w.RunUntil(most, func() bool { return stop() || held() }) {
		w.Judge.violate("%s, the last one, does not hold every VIP %s after the others died", last, most)
		return 0
	}
	took := time.Duration(w.Now - died)
	if w.RunUntil(10*time.Second, stop) {
		return took
	}
	moves, back := w.Judge.Moves, r.back
	w.tracef("ALL RETURN")
	comeBack()
	if w.RunUntil(s.Bound()+s.Config.Exclude, stop) {
		return took
	}
	for i, v := range w.VIPs {
		if h := w.holder(i); h == nil || h.bound[i].survivor {
			w.Judge.violate("%s is not held by lease after all returned", v.ID)
		}
	}
	if n := w.Judge.Moves - moves; may && n > len(roles(w.VIPs)) {
		w.Judge.violate("%d moves when the others came back: %d holds became leases", n, r.back-back)
	}
	return took
}

// loseAllBut lets all other nodes die, or cuts them off from everything. It returns a
// function that brings them back.
func (w *World) loseAllBut(last *Node) (comeBack func()) {
	r, other := w.Router, func(n *Node) bool { return n != last }
	if r.rand.IntN(2) == 0 {
		w.tracef("ALL CUT OFF but %s", last)
		undo, plug := w.cutAll(func(x, y *Node) bool { return true }), r.cut(other, true, true)
		return func() { undo(); plug() }
	}
	w.tracef("ALL DIE but %s", last)
	for _, n := range w.Nodes {
		if other(n) {
			n.PowerOff()
		}
	}
	return func() {
		for _, n := range w.Nodes {
			if other(n) {
				w.At(time.Duration(r.rand.Int64N(int64(3*time.Second))), n.PowerOn)
			}
		}
	}
}

// asking returns how long a survivor needs to ask for owners and to take its VIPs one by
// one.
func (s Survivors) asking(w *World) time.Duration {
	n := len(w.VIPs)
	return time.Duration(max(15, 2*n)+1)*125*time.Millisecond + time.Duration(n)*250*time.Millisecond
}

func roles(vips []elect.VIPConfig) (out []elect.VIPConfig) {
	for _, v := range vips {
		if v.Role {
			out = append(out, v)
		}
	}
	return out
}

func (s Survivors) String() string {
	return fmt.Sprintf("%s, router relays %v, survivor %d", s.Scenario, s.Relays, s.Config.Survivor)
}

// Add adds the survivor figures of another run.
func (r *SurvivorResult) Add(o SurvivorResult) {
	r.Taken += o.Taken
	r.InPlace += o.InPlace
	r.Back += o.Back
	r.Alone = max(r.Alone, o.Alone)
	for i := range o.Overlaps {
		r.Overlaps[i] += o.Overlaps[i]
		r.Longest[i] = max(r.Longest[i], o.Longest[i])
	}
}

// parted reports whether two nodes cannot know of each other by any means: a firewall
// stops the agent's packets, and ARP is cut too. Then §4.6 does not hold.
func (w *World) parted() bool {
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			if a != b && a.walls+b.walls > 0 && a.cut[b.Index]+b.cut[a.Index] > 0 {
				return true
			}
		}
	}
	return false
}
