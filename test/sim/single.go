package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"sipalive/elect"
)

// Single is a run of one fault at a time in a cluster that is well. A VIP may move at
// most once if the fault hits its holder. Otherwise it must not move, and none may move
// when the fault ends.
type Single struct {
	Scenario
	Rounds int
}

// singleKinds are the faults that clearly have one victim, or none.
var singleKinds = []FaultKind{CutPair, CutOneWay, Isolate, Lossy, Duplicating, Straggling, Freeze, Crash, CrashLost, CrashStoring, PowerCut, PBXDead,
	PBXSilent, PBXAll, BlindOne, BlindSelf, MoveVIP, DrainNode, SlowDisk, FailPrepare, SlowPrepare}

// Run runs the rounds.
func (s Single) Run(trace func(string)) Result {
	w := s.World()
	w.Trace = trace
	w.Fence = true
	w.tracef("%s", s.Scenario)
	w.Start()
	settled := s.Bound() + s.Config.HoldDown + s.Config.Exclude
	w.Run(settled)
	r := rand.New(rand.NewPCG(s.Seed, 0x51))
	for i := 0; i < s.Rounds && len(w.Judge.Violations) == 0; i++ {
		f := randomFault(r, len(w.Nodes), len(w.VIPs), s.Config.Lease, singleKinds)
		if r.IntN(2) == 0 {
			f.For += 4 * s.longest() // long enough to matter
		}
		f.At = 0
		s.round(w, f, settled)
	}
	return Result{Violations: w.Judge.Violations, Simulated: time.Duration(w.Now), Moves: w.Judge.Moves, Leases: w.Judge.Unshared, Steps: w.Steps}
}

func (s Single) round(w *World, f Fault, settled time.Duration) {
	before := make([]int, len(w.VIPs))
	may := make([]bool, len(w.VIPs))
	for i := range w.VIPs {
		before[i] = w.Judge.vips[i].moves
		h := w.holder(i)
		if h == nil {
			w.Judge.violate("%s has no holder before %s", w.VIPs[i].ID, f)
			return
		}
		may[i] = f.hits(w, h, i)
	}
	w.Apply(f)
	stop := func() bool { return len(w.Judge.Violations) > 0 }
	if w.RunUntil(f.For+time.Second, stop) {
		return
	}
	w.Heal()
	if w.RunUntil(settled, stop) {
		return
	}
	for i, v := range w.VIPs {
		n := w.Judge.vips[i].moves - before[i]
		if n > 1 || n == 1 && !may[i] {
			w.Judge.violate("%s moved %d times for %s (hits its holder: %v)", v.ID, n, f, may[i])
		}
		if w.holder(i) == nil {
			w.Judge.violate("%s has no holder after %s", v.ID, f)
		}
	}
}

// hits reports whether the fault may cost the holder its VIP.
func (f Fault) hits(w *World, h *Node, vip int) bool {
	a := w.Nodes[f.A]
	switch f.Kind {
	case Isolate, Freeze, Crash, CrashLost, CrashStoring, PowerCut, PBXDead, PBXSilent:
		return h == a
	case PBXAll:
		// A role may go to a witness, which has no PBX to be sick.
		return w.VIPs[vip].Role && slices.ContainsFunc(h.Config.Nodes, func(c elect.NodeConfig) bool { return !c.Holder })
	case DrainNode:
		return h == w.Nodes[f.B]
	case MoveVIP:
		return vip == f.N%len(w.VIPs)
	}
	return false
}

// FaultFree runs a cluster in which nothing fails; only the clocks' rates differ.
func FaultFree(seed uint64, d time.Duration) (moves int, vacant time.Duration, w *World) {
	s := NewScenario(seed, 3, 0)
	s.Config.Heartbeat, s.Config.Lease = 200*time.Millisecond, time.Second
	s.Leases, s.Faults = nil, nil
	w = s.World()
	w.Start()
	if !w.RunUntil(time.Minute, w.AllHeld) {
		w.Judge.violate("nothing is held after a minute")
	}
	w.Run(time.Minute)
	moves = w.Judge.Moves
	w.Watch(2 * lookEvery)
	w.Run(d)
	return w.Judge.Moves - moves, w.Judge.live.Longest, w
}
