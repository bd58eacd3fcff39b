package page

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Figures is all the data of a page.
type Figures struct {
	Runs  []Run
	Costs []Cost
}

// of returns the good runs of a cell, and how many were rejected.
func (f Figures) of(tool, setting, fault string) (good []Run, rejected int) {
	for _, r := range f.Runs {
		switch {
		case r.Tool != tool || r.Setting != setting || r.Fault != fault:
		case r.Rejected:
			rejected++
		default:
			good = append(good, r)
		}
	}
	return good, rejected
}

func silenceOf(r Run) time.Duration { return r.Silence }
func ownersOf(r Run) time.Duration  { return r.TwoOwners }
func movedOf(r Run) time.Duration   { return r.Moved }

// sorted returns the values of the runs in order.
func sorted(runs []Run, of func(Run) time.Duration) (values []time.Duration) {
	for _, r := range runs {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values
}

// quantile returns the nearest-rank quantile: of ten runs the tenth is p99.
func quantile(runs []Run, q float64, of func(Run) time.Duration) time.Duration {
	values := sorted(runs, of)
	return values[int(math.Ceil(q*float64(len(values))))-1]
}

// median returns the median. For an even number of runs it is halfway between the two in
// the middle.
func median(runs []Run, of func(Run) time.Duration) time.Duration {
	values := sorted(runs, of)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func worst(runs []Run, of func(Run) time.Duration) time.Duration { return quantile(runs, 1, of) }

// middle returns the run with the median silence.
func middle(runs []Run) Run {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b Run) int { return int(a.Silence - b.Silence) })
	return runs[(len(runs)-1)/2]
}

// duration formats a time for people: 3.0 ms, 31 ms, 882 ms, 3.12 s.
func duration(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case d == 0:
		return "0"
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.2f s", ms/1000)
	}
}

// Line sums up the runs of one cell for a person who watches.
func Line(cell []Run) string {
	f := Figures{Runs: cell}
	good, rejected := f.of(cell[0].Tool, cell[0].Setting, cell[0].Fault)
	head := fmt.Sprintf("%-11s %-8s %-13s", cell[0].Tool, cell[0].Setting, cell[0].Fault)
	if len(good) == 0 {
		return fmt.Sprintf("%s no run seen clearly, %d rejected", head, rejected)
	}
	return fmt.Sprintf("%s median %8s, worst %8s, moved %8s, two owners %8s, %d takeovers, %d runs, %d rejected", head, duration(median(good, silenceOf)),
		duration(worst(good, silenceOf)), duration(median(good, movedOf)), duration(worst(good, ownersOf)), takeovers(good), len(good), rejected)
}
