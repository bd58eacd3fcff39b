package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sipalive/elect"
)

// Fault is something that goes wrong for a while. A schedule of faults is data, so that a
// failing schedule can be shrunk.
type Fault struct {
	Kind FaultKind
	At   time.Duration // from the start of the run
	For  time.Duration
	A, B int  // node indices
	Set  uint // of nodes, for partitions
	N    int  // a VIP index, or a variant
	P    float64
}

// FaultKind is what goes wrong.
type FaultKind uint8

// These are the faults of the network, of processes and hosts, of PBXes and of operators.
const (
	CutPair FaultKind = iota
	CutOneWay
	Isolate
	Deaf
	Mute
	Partition // Set is cut from the rest
	Bridge    // Set and the rest do not reach each other; A reaches all
	ThreeWay  // A, Set and the rest do not reach each other
	Lossy
	LossyLink
	Duplicating
	Straggling // some packets take up to two leases
	Freeze
	FreezeOften // five short freezes
	Crash
	CrashLost // and the runtime directory is lost
	CrashStoring
	PowerCut
	PowerCutAll
	PBXDead
	PBXSilent
	PBXAll // all PBXes are sick
	BlindOne
	BlindSome
	PBXFlaps
	MoveVIP
	DrainNode
	FailbackAll
	StopAgent
	Unbindable
	Unstorable
	SlowDisk
	SlowPrepare
	FailPrepare
	FailVerify
	BlindSelf  // A's prober does not hear A's own PBX
	Forgetting // voter A loses its memory while B is cut off
	faultKinds
)

var faultNames = [faultKinds]string{"cut pair", "cut one way", "isolate", "deaf", "mute", "partition", "bridge", "three-way partition",
	"loss", "lossy link", "duplicates", "stragglers", "freeze", "freeze often", "crash", "crash and lose the runtime directory",
	"crash between store and send", "power cut", "power cut of all", "PBX dead", "PBX silent", "all PBXes sick", "one observer blind",
	"some observers blind", "PBX flaps", "move", "drain", "failback", "stop", "cannot bind", "cannot store", "slow disk", "slow prepare",
	"prepare fails", "verification fails", "blind for itself", "voter forgets while another is cut off"}

func (k FaultKind) String() string {
	if k >= faultKinds {
		return routerFaultNames[k-faultKinds]
	}
	return faultNames[k]
}

func (f Fault) String() string {
	return fmt.Sprintf("{%s at %s for %s A=%d B=%d set=%b n=%d p=%.2f}", f.Kind, f.At, f.For, f.A, f.B, f.Set, f.N, f.P)
}

// randomFault draws one fault for a cluster of this size.
func randomFault(r *rand.Rand, nodes, vips int, lease time.Duration, kinds []FaultKind) Fault {
	f := Fault{Kind: kinds[r.IntN(len(kinds))], A: r.IntN(nodes), N: r.IntN(max(vips, 1)), P: r.Float64()}
	f.B = (f.A + 1 + r.IntN(nodes-1)) % nodes
	f.Set = 1 + uint(r.IntN(1<<nodes-2))
	// Half of the faults last about a lease or less: there the timing is hardest.
	switch r.IntN(4) {
	case 0:
		f.For = time.Duration(r.Int64N(int64(lease)))
	case 1:
		f.For = time.Duration(float64(lease) * (0.8 + 0.6*r.Float64()))
	default:
		f.For = time.Duration(r.Int64N(int64(12 * lease)))
	}
	return f
}

// slowestDisk is the longest time that a write to disk takes.
const slowestDisk = 2 * time.Second

// Apply starts the fault and schedules its end.
func (w *World) Apply(f Fault) {
	w.At(f.At, func() {
		w.tracef("FAULT %s", f)
		end := w.begin(f)
		if end != nil {
			w.At(f.For, func() { w.tracef("FAULT over: %s", f.Kind); end() })
		}
	})
}

func (w *World) begin(f Fault) func() {
	a, b := w.Nodes[f.A], w.Nodes[f.B]
	if f.Kind >= faultKinds {
		return w.beginRouter(f, a, b)
	}
	switch f.Kind {
	case CutPair:
		return w.cutAll(func(x, y *Node) bool { return x == a && y == b || x == b && y == a })
	case CutOneWay:
		return w.cutAll(func(x, y *Node) bool { return x == a && y == b })
	case Isolate:
		return w.cutAll(func(x, y *Node) bool { return x == a || y == a })
	case Deaf:
		return w.cutAll(func(x, y *Node) bool { return y == a })
	case Mute:
		return w.cutAll(func(x, y *Node) bool { return x == a })
	case Partition:
		return w.cutAll(func(x, y *Node) bool { return f.in(x) != f.in(y) })
	case Bridge:
		return w.cutAll(func(x, y *Node) bool { return x != a && y != a && f.in(x) != f.in(y) })
	case ThreeWay:
		side := func(x *Node) int {
			switch {
			case x == a:
				return 0
			case f.in(x):
				return 1
			}
			return 2
		}
		return w.cutAll(func(x, y *Node) bool { return side(x) != side(y) })
	case Lossy:
		return w.worsen(&w.Net.Loss, 0.4*f.P)
	case LossyLink:
		return w.worsen(&a.loss[b.Index], f.P)
	case Duplicating:
		return w.worsen(&w.Net.Dup, 0.5*f.P)
	case Straggling:
		return w.worsen(&w.Net.Slow, 0.3*f.P)
	}
	if f.Kind == Forgetting {
		return w.forget(f, a, b)
	}
	if f.Kind < PBXDead {
		return w.beginHost(f, a)
	}
	return w.beginService(f, a, b)
}

// forget makes voter a lose its memory while b is cut off. In the hardest variant only a
// hears b for more than a lease, and then a restarts twice.
func (w *World) forget(f Fault, a, b *Node) func() {
	isolate := func() func() { return w.cutAll(func(x, y *Node) bool { return x == b || y == b }) }
	lose := func() {
		a.Kill()
		a.Forget()
		w.At(time.Duration(f.P*float64(100*time.Millisecond)), a.Start)
	}
	if f.Set&1 != 0 {
		lose()
		return isolate()
	}
	undo := w.cutAll(func(x, y *Node) bool { return x == b && y != a || y == b && x != a })
	over := false
	w.At(b.Config.Lease*6/5, func() {
		if over {
			return
		}
		undo()
		undo = isolate()
		lose()
		w.At(100*time.Millisecond, a.Kill)
		w.At(110*time.Millisecond, a.Start)
	})
	return func() { over = true; undo() }
}

func (f Fault) in(n *Node) bool { return f.Set&(1<<n.Index) != 0 }

func (w *World) cutAll(cut func(x, y *Node) bool) func() {
	var undo []func()
	for _, x := range w.Nodes {
		for _, y := range w.Nodes {
			if x != y && cut(x, y) {
				x.Cut(y)
				undo = append(undo, func() { x.Uncut(y) })
			}
		}
	}
	return func() {
		for _, u := range undo {
			u()
		}
	}
}

func (w *World) worsen(p *float64, to float64) func() {
	before := *p
	*p = max(before, to)
	return func() { *p = before }
}

func (w *World) beginHost(f Fault, a *Node) func() {
	switch f.Kind {
	case Freeze:
		a.Pause()
		return a.Resume
	case FreezeOften:
		for i := range 5 {
			w.At(time.Duration(i)*f.For/5, a.Pause)
			w.At(time.Duration(i)*f.For/5+f.For/8, a.Resume)
		}
		return a.Resume
	case CrashStoring:
		a.CrashOnStore = true
		return func() { a.CrashOnStore = false; a.Start() }
	case CrashLost:
		a.Kill()
		a.Forget()
		return a.Start
	case PowerCut:
		a.PowerOff()
		return a.PowerOn
	case PowerCutAll:
		for _, n := range w.Nodes {
			n.PowerOff()
		}
		return func() {
			for _, n := range w.Nodes {
				w.At(time.Duration(w.Rand.Int64N(int64(3*time.Second))), n.PowerOn)
			}
		}
	}
	a.Kill()
	return a.Start
}

func (w *World) beginService(f Fault, a, b *Node) func() {
	switch f.Kind {
	case PBXDead:
		a.SetPBX(elect.SIPRefused)
		return func() { a.SetPBX(elect.SIPUp) }
	case PBXSilent:
		a.SetPBX(elect.SIPSilent)
		return func() { a.SetPBX(elect.SIPUp) }
	case PBXAll:
		for _, n := range w.Nodes {
			n.SetPBX(elect.SIPSilent)
		}
		return func() {
			for _, n := range w.Nodes {
				n.SetPBX(elect.SIPUp)
			}
		}
	case BlindOne:
		a.SetBlind(b, true)
		return func() { a.SetBlind(b, false) }
	case BlindSelf:
		a.SetBlind(a, true)
		return func() { a.SetBlind(a, false) }
	case BlindSome:
		return w.blindSome(f, b)
	case PBXFlaps:
		for i := range 4 {
			w.At(time.Duration(i)*f.For/4, func() { a.SetPBX(elect.SIPRefused) })
			w.At(time.Duration(i)*f.For/4+f.For/8, func() { a.SetPBX(elect.SIPUp) })
		}
	case MoveVIP:
		a.Do(elect.Command{Kind: elect.CommandMove, VIP: w.VIPs[f.N%len(w.VIPs)].ID, Node: b.Name})
	case FailbackAll:
		a.Do(elect.Command{Kind: elect.CommandFailback})
	case DrainNode:
		a.Do(elect.Command{Kind: elect.CommandDrain, Node: b.Name})
		return func() { b.Do(elect.Command{Kind: elect.CommandUndrain}) }
	case StopAgent:
		a.stopping = true
		a.Do(elect.Command{Kind: elect.CommandStop})
		return func() { a.Kill(); a.Start() }
	case Unbindable:
		a.BindFails = true
		return func() { a.BindFails = false }
	case Unstorable:
		a.StoreFails = true
		return func() { a.StoreFails = false }
	case SlowDisk:
		w.DiskTook = time.Duration(f.P * float64(slowestDisk))
		return func() { w.DiskTook = 2 * time.Millisecond }
	case SlowPrepare:
		a.PrepareTook = time.Duration(f.P * float64(3*time.Second))
		return func() { a.PrepareTook = 0 }
	case FailPrepare:
		a.PrepareFail = "its prepare action failed"
		return func() { a.PrepareFail = "" }
	case FailVerify:
		a.VerifyFails = true
		return func() { a.VerifyFails = false }
	}
	return nil
}

func (w *World) blindSome(f Fault, b *Node) func() {
	for _, n := range w.Nodes {
		if n != b && f.in(n) {
			n.SetBlind(b, true)
		}
	}
	return func() {
		for _, n := range w.Nodes {
			n.SetBlind(b, false)
		}
	}
}

// Heal ends every fault.
func (w *World) Heal() {
	w.tracef("HEALED")
	slow := w.Net.SlowBy
	w.Net = Net{Base: w.Net.Base, Jitter: w.Net.Jitter, SlowBy: slow}
	w.DiskTook = 2 * time.Millisecond
	if w.Router != nil {
		w.Router.heal()
	}
	for _, n := range w.Nodes {
		n.walls = 0
		clear(n.cut)
		clear(n.loss)
		clear(n.blind)
		n.PrepareTook, n.PrepareFail, n.VerifyFails, n.BindFails, n.HalfBinds, n.StoreFails, n.CrashOnStore = 0, "", false, false, false, false, false
		n.PBX = elect.SIPUp
		n.Resume()
		switch {
		case n.Off:
			n.PowerOn()
		case n.stopping:
			n.Kill()
			n.Start()
		default:
			n.Start()
		}
		n.Do(elect.Command{Kind: elect.CommandUndrain})
	}
	for _, n := range w.Nodes {
		for _, p := range w.Nodes {
			n.look(p)
		}
	}
}
