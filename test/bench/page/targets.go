package page

import (
	"fmt"
	"time"
)

// target is a promise: sipalive's median silence is at most this part of keepalived's.
type target struct {
	fault, versus, setting string
	most                   float64
}

var targets = []target{
	{"silent-host", "silent-host", "default", 0.4},
	{"silent-host", "silent-host", "100ms", 0.65},
	{"silent-host", "silent-host", "50ms", 0.65},
	{"silent-host", "silent-host", "10ms", 1.0},
	{"planned-move", "planned-stop", "default", 0.05},
	{"planned-move", "planned-stop", "100ms", 0.05},
	{"planned-move", "planned-stop", "50ms", 0.05},
	{"planned-move", "planned-stop", "10ms", 0.05},
	{"pbx-killed", "pbx-killed", "default", 0.05},
	{"pbx-killed", "pbx-killed", "100ms", 0.05},
	{"pbx-killed", "pbx-killed", "50ms", 0.05},
	{"pbx-killed", "pbx-killed", "10ms", 0.05},
}

const (
	met     = "met"
	missed  = "**missed**"
	unknown = "not measured"
)

func verdict(ok bool) string {
	if ok {
		return met
	}
	return missed
}

// Targets returns the table of promises, each with what was measured.
func (f Figures) Targets() string {
	var rows [][]string
	for _, t := range targets {
		rows = append(rows, f.ratio(t))
	}
	for _, setting := range Settings {
		rows = append(rows, f.calm(setting))
	}
	for _, setting := range Settings {
		rows = append(rows, f.oneOwner(setting))
	}
	return Table([]string{"what", "setting", "sipalive", "keepalived", "seen", "promised", ""}, rows)
}

func (f Figures) ratio(t target) []string {
	what := Faults[faultIndex(t.fault)].Title
	if t.versus != t.fault {
		what += ", keepalived: " + Faults[faultIndex(t.versus)].Title
	}
	row := []string{what, t.setting}
	promised := fmt.Sprintf("at most %g", t.most)
	ours, _ := f.of("sipalive", t.setting, t.fault)
	theirs, _ := f.of("keepalived", t.setting, t.versus)
	if len(ours) == 0 || len(theirs) == 0 {
		return append(row, absent, absent, absent, promised, unknown)
	}
	a, b := median(ours, silenceOf), median(theirs, silenceOf)
	ratio := float64(a) / float64(max(b, time.Microsecond))
	return append(row, duration(a), duration(b), fmt.Sprintf("%.3f", ratio), promised, verdict(ratio <= t.most))
}

// calm returns the row for the promise of no takeover in a minute of 20 % loss.
func (f Figures) calm(setting string) []string {
	row := []string{"takeovers in a minute of 20 % loss", setting}
	ours, _ := f.of("sipalive", setting, "loss-20")
	theirs, _ := f.of("keepalived", setting, "loss-20")
	other := absent
	if len(theirs) > 0 {
		other = fmt.Sprint(takeovers(theirs))
	}
	if len(ours) == 0 {
		return append(row, absent, other, absent, "none", unknown)
	}
	n := takeovers(ours)
	return append(row, fmt.Sprint(n), other, fmt.Sprint(n), "none", verdict(n == 0))
}

// oneOwner returns the row for the promise that two owners never overlap, whatever the
// fault.
func (f Figures) oneOwner(setting string) []string {
	row := []string{"longest time with two owners, rejected runs too", setting}
	longest := func(tool string) (most time.Duration, faults int) {
		seen := map[string]bool{}
		for _, r := range f.Runs { // rejected runs too: a busy machine is no excuse
			if r.Tool == tool && r.Setting == setting {
				most, seen[r.Fault] = max(most, r.TwoOwners), true
			}
		}
		return most, len(seen)
	}
	other := absent
	if d, faults := longest("keepalived"); faults > 0 {
		other = duration(d)
	}
	d, faults := longest("sipalive")
	if faults == 0 {
		return append(row, absent, other, absent, "0", unknown)
	}
	ok := verdict(d == 0)
	if faults < len(Faults) {
		ok += fmt.Sprintf(", %d of %d faults measured", faults, len(Faults))
	}
	return append(row, duration(d), other, duration(d), "0", ok)
}

// Headline returns the README's table, with the default setting of each tool.
func (f Figures) Headline() string {
	var rows [][]string
	for _, name := range []string{"silent-host", "planned-stop", "planned-move", "pbx-killed", "agent-frozen", "partition"} {
		row := []string{Faults[faultIndex(name)].Title}
		for _, t := range Tools {
			runs, _ := f.of(t, "default", name)
			if len(runs) == 0 {
				row = append(row, absent)
				continue
			}
			row = append(row, duration(median(runs, silenceOf))+twoOwners(runs))
		}
		rows = append(rows, row)
	}
	return Table([]string{"silence at the phone, median, default settings", "sipalive", "keepalived", "ucarp"}, rows)
}

func twoOwners(runs []Run) string {
	if d := median(runs, ownersOf); d > 0 {
		return ", two owners for " + duration(d)
	}
	return ""
}
