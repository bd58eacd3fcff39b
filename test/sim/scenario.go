package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"sipalive/elect"
)

// Scenario is one run: a cluster, its network and a schedule of faults. All of it follows
// from the seed.
type Scenario struct {
	Seed     uint64
	Config   elect.Config
	Leases   []time.Duration // by node, if they differ from Config's
	Rates    []float64
	Net      Net
	NoFence  bool
	Faults   []Fault
	Duration time.Duration // of the faults
}

// Result is the outcome of a run.
type Result struct {
	Violations []string
	Simulated  time.Duration
	Moves      int
	Leases     int
	Obtained   int // locks obtained
	Kept       int // how often a lock was kept and the judge checked that
	Steps      uint64
	Vacant     time.Duration // the longest vacancy while a majority was well
	StepRate   float64       // the most steps per second at one node
}

// NewScenario draws a run from a seed; with nodes 0 it draws the size too.
func NewScenario(seed uint64, nodes int, duration time.Duration) Scenario {
	r := rand.New(rand.NewPCG(seed, 0xfa))
	s := Scenario{Seed: seed, Duration: duration}
	if nodes == 0 {
		nodes = []int{3, 3, 4, 5, 5, 7}[r.IntN(6)]
	}
	s.Config = randomCluster(r, nodes)
	T := s.Config.Lease
	for range nodes {
		s.Rates = append(s.Rates, 1+(r.Float64()-0.5)*0.001)
	}
	if r.IntN(4) == 0 {
		s.Leases = make([]time.Duration, nodes)
		for i := range s.Leases {
			s.Leases[i] = T * time.Duration(1+r.IntN(3))
		}
	}
	s.Net = Net{Base: time.Duration(50+r.IntN(500)) * time.Microsecond, SlowBy: 2 * T}
	if r.IntN(2) == 0 {
		s.Net.Jitter = time.Duration(r.Int64N(int64(20 * time.Millisecond)))
	}
	s.NoFence = r.IntN(8) == 0
	s.Faults = randomSchedule(r, nodes, len(s.Config.VIPs), T, duration)
	return s
}

func randomSchedule(r *rand.Rand, nodes, vips int, lease, duration time.Duration) []Fault {
	// Few kinds at a time, so that their combinations occur sooner.
	kinds := make([]FaultKind, 1+r.IntN(6))
	for i := range kinds {
		kinds[i] = FaultKind(r.IntN(int(faultKinds)))
	}
	gap := time.Duration(float64(lease) * (0.5 + 8*r.Float64()))
	var out []Fault
	for at := time.Duration(0); at < duration; at += time.Duration(r.Int64N(int64(2 * gap))) {
		f := randomFault(r, nodes, vips, lease, kinds)
		f.At = at
		f.For = min(f.For, duration-at)
		out = append(out, f)
	}
	return out
}

func randomCluster(r *rand.Rand, nodes int) elect.Config {
	h := []time.Duration{100, 200, 200, 200, 400, 500}[r.IntN(6)] * time.Millisecond
	T := h * time.Duration(3+r.IntN(5))
	cfg := elect.Config{
		Heartbeat: h, Lease: T, HoldDown: time.Duration(r.IntN(10)) * time.Second, Settle: time.Duration(r.IntN(5)) * time.Second,
		Stagger: 50 * time.Millisecond, Exclude: time.Duration(1+r.IntN(20)) * time.Second, FailbackAfter: 5 * time.Second,
		PrepareTimeout: 2 * time.Second, Digest: 1,
	}
	witnesses := 0
	if nodes > 2 && r.IntN(4) == 0 {
		witnesses = 1
	}
	for i := range nodes {
		cfg.Nodes = append(cfg.Nodes, elect.NodeConfig{Name: nodeName(i), Voter: true, Holder: i < nodes-witnesses, Capacity: 1 + r.IntN(2)})
	}
	if nodes > 3 && r.IntN(3) == 0 {
		cfg.Nodes[r.IntN(nodes)].Voter = false
	}
	vips := 1 + r.IntN(3)
	if r.IntN(60) == 0 {
		vips = 1 + r.IntN(64)
	}
	for i := range vips {
		v := elect.VIPConfig{ID: elect.VIPID(fmt.Sprintf("192.0.2.%d", 101+i)), Name: fmt.Sprintf("vip%d", i+1), Weight: 1 + r.IntN(2)}
		for _, p := range r.Perm(nodes)[:r.IntN(nodes)] {
			v.Prefer = append(v.Prefer, nodeName(p))
		}
		cfg.VIPs = append(cfg.VIPs, v)
	}
	if r.IntN(3) == 0 {
		cfg.VIPs = append(cfg.VIPs, elect.VIPConfig{ID: elect.RoleID("cdr"), Name: "cdr", Role: true, PreferSpare: true})
	}
	return cfg
}

func nodeName(i int) elect.Node { return elect.Node(string(rune('a' + i))) }

// World builds the cluster of a scenario. Nothing has started yet.
func (s Scenario) World() *World {
	w := New(s.Seed, s.Config)
	w.Net, w.Fence = s.Net, !s.NoFence
	for i, n := range w.Nodes {
		n.Rate = s.Rates[i]
		if s.Leases != nil {
			n.Config.Lease = s.Leases[i]
		}
	}
	return w
}

// longest is the longest lease of the cluster.
func (s Scenario) longest() time.Duration {
	T := s.Config.Lease
	for _, l := range s.Leases {
		T = max(T, l)
	}
	return T
}

// Bound is how long a VIP may be without a holder while a majority is well: the quiet
// time, the old lease, and some candidacies that block each other.
func (s Scenario) Bound() time.Duration { return 14*s.longest() + s.Config.Settle + 3*time.Second }

// Run runs the faults, heals everything, waits until every VIP is held, and expects that
// nothing moves any more.
func (s Scenario) Run(trace func(string)) Result {
	w := s.World()
	w.Trace = trace
	w.tracef("%s", s)
	w.Start()
	w.Watch(s.Bound())
	for _, f := range s.Faults {
		w.Apply(f)
	}
	stop := func() bool { return len(w.Judge.Violations) > 0 }
	if !w.RunUntil(s.Duration+time.Second, stop) {
		s.afterwards(w, stop)
	}
	return Result{Violations: w.Judge.Violations, Simulated: time.Duration(w.Now), Moves: w.Judge.Moves, Leases: w.Judge.Unshared,
		Steps: w.Steps, Vacant: w.Judge.live.Longest, StepRate: w.Judge.live.stepsMost}
}

func (s Scenario) afterwards(w *World, stop func() bool) {
	w.Heal()
	if w.RunUntil(s.Bound()+s.Config.Exclude, stop) {
		return
	}
	if !w.AllHeld() {
		w.Judge.violate("not every VIP is held %s after everything was healed", s.Bound())
		return
	}
	moves := w.Judge.Moves
	if w.RunUntil(20*s.longest(), stop) {
		return
	}
	if n := w.Judge.Moves - moves; n > 0 {
		w.Judge.violate("%d moves though nothing is wrong", n)
	}
}

func (s Scenario) String() string {
	var b strings.Builder
	c := s.Config
	fmt.Fprintf(&b, "seed %d: %d nodes, %d VIPs, h %s, T %s, leases %v, fence %v, net %+v", s.Seed, len(c.Nodes), len(c.VIPs), c.Heartbeat, c.Lease,
		s.Leases, !s.NoFence, s.Net)
	for _, n := range c.Nodes {
		if !n.Voter || !n.Holder {
			fmt.Fprintf(&b, ", %s voter %v holder %v", n.Name, n.Voter, n.Holder)
		}
	}
	return b.String()
}

// Shrink removes faults as long as the run still fails.
func (s Scenario) Shrink() Scenario {
	for size := len(s.Faults) / 2; size > 0; {
		removed := false
		for i := 0; i+size <= len(s.Faults); {
			t := s
			t.Faults = append(append([]Fault{}, s.Faults[:i]...), s.Faults[i+size:]...)
			if len(t.Run(nil).Violations) > 0 {
				s, removed = t, true
			} else {
				i += size
			}
		}
		if !removed || size > 1 {
			size /= 2
		}
	}
	return s
}
