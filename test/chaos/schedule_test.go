package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is a kind of fault.
type kind string

const (
	cut      kind = "host cut"
	cable    kind = "cable pulled"
	sever    kind = "pair severed"
	oneWay   kind = "one way lost"
	loss     kind = "loss everywhere"
	pbx      kind = "PBX killed"
	crash    kind = "agent killed, started within the lease"
	crashed  kind = "agent killed, started after the lease"
	frozen   kind = "agent stopped (SIGSTOP)"
	upgrade  kind = "agent replaced (SIGUSR2)"
	move     kind = "move"
	drain    kind = "drain"
	failback kind = "failback"
)

// fault is one entry of a schedule. A schedule follows from its seed alone, and not from
// what its faults do.
type fault struct {
	From, To time.Duration // since the start
	Kind     kind
	A, B     int // nodes; B is -1 for the router, or a VIP's number for a move
	Percent  float64
}

func (f fault) String() string {
	s := fmt.Sprintf("%s: %s", f.Kind, host(f.A))
	switch f.Kind {
	case sever, oneWay:
		s += " to " + host(f.B)
	case loss:
		s = fmt.Sprintf("%s: %.0f %%", f.Kind, f.Percent)
	case move:
		s = fmt.Sprintf("move: vip%d to %s", f.B+1, host(f.A))
	}
	return fmt.Sprintf("%s, for %v", s, (f.To - f.From).Round(time.Millisecond))
}

func host(i int) string {
	if i < 0 {
		return "router"
	}
	return fmt.Sprintf("pbx%d", i+1)
}

const (
	nodes = 3
	vips  = 2
)

// lasts is how long each kind of fault takes, at least and at most, and how often it
// occurs relative to the others. A lease is one second.
var lasts = []struct {
	kind   kind
	lo, hi time.Duration
	weight int
}{
	{cut, 200 * time.Millisecond, 5 * time.Second, 3},
	{cable, 200 * time.Millisecond, 4 * time.Second, 2},
	{sever, 300 * time.Millisecond, 6 * time.Second, 3},
	{oneWay, 300 * time.Millisecond, 6 * time.Second, 3},
	{loss, time.Second, 8 * time.Second, 2},
	{pbx, 100 * time.Millisecond, 4 * time.Second, 3},
	{crash, 0, 500 * time.Millisecond, 3},
	{crashed, 1300 * time.Millisecond, 5 * time.Second, 3},
	{frozen, 200 * time.Millisecond, 4 * time.Second, 4},
	{upgrade, 0, 300 * time.Millisecond, 2},
	{move, time.Second, time.Second, 3},
	{drain, time.Second, 5 * time.Second, 2},
	{failback, time.Second, time.Second, 1},
}

// schedule makes the faults of a seed. They overlap, but each thing is broken in only one
// way at a time.
func schedule(seed uint64, long time.Duration) []fault {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	busy := map[string]time.Duration{}
	var list []fault
	for at := time.Duration(0); ; {
		at += 100*time.Millisecond + time.Duration(rng.Int64N(int64(1500*time.Millisecond)))
		f := draw(rng, at)
		if f.To > long {
			return list
		}
		if thing := f.thing(); busy[thing] <= at {
			busy[thing] = f.To + 100*time.Millisecond
			list = append(list, f)
		}
	}
}

func draw(rng *rand.Rand, at time.Duration) fault {
	sum := 0
	for _, l := range lasts {
		sum += l.weight
	}
	n := rng.IntN(sum)
	for _, l := range lasts {
		if n -= l.weight; n >= 0 {
			continue
		}
		f := fault{From: at, Kind: l.kind, A: rng.IntN(nodes), Percent: 5 + 25*rng.Float64()}
		f.B = (f.A + 1 + rng.IntN(nodes-1)) % nodes
		if rng.IntN(5) == 0 {
			f.B = -1
		}
		if l.kind == move {
			f.B = rng.IntN(vips)
		}
		f.To = at + l.lo + time.Duration(rng.Int64N(int64(l.hi-l.lo)+1))
		return f
	}
	panic("weights do not add up")
}

// thing returns what a fault breaks.
func (f fault) thing() string {
	switch f.Kind {
	case cut, cable:
		return fmt.Sprint("port ", f.A)
	case sever, oneWay:
		return fmt.Sprint("pair ", min(f.A, f.B), max(f.A, f.B))
	case crash, crashed, frozen, upgrade:
		return fmt.Sprint("agent ", f.A)
	case pbx:
		return fmt.Sprint("pbx ", f.A)
	case drain:
		return fmt.Sprint("drain ", f.A)
	}
	return string(f.Kind)
}

// edge is the beginning or the end of a fault.
type edge struct {
	at    time.Duration
	fault fault
	over  bool
}

func edges(list []fault) []edge {
	var all []edge
	for _, f := range list {
		all = append(all, edge{f.From, f, false}, edge{f.To, f, true})
	}
	slices.SortStableFunc(all, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	return all
}
