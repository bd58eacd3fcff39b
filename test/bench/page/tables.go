package page

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	absent = "–"
	enough = 10 // runs; a cell with fewer says so
)

// Silences returns one table per setting: what the phone heard of each fault.
func (f Figures) Silences() string {
	var b strings.Builder
	for _, setting := range Settings {
		tools := slices.DeleteFunc(slices.Clone(Tools), func(tool string) bool { return !f.any(tool, setting) })
		if len(tools) == 0 {
			continue
		}
		header := []string{setting}
		for _, t := range tools {
			header = append(header, "**"+t+"** median", "p99", "moved after", "two owners")
		}
		var rows [][]string
		for _, fault := range Faults {
			if fault.Loss > 0 {
				continue
			}
			row := []string{fault.Title}
			for _, t := range tools {
				row = append(row, f.silence(t, setting, fault.Name)...)
			}
			rows = append(rows, row)
		}
		b.WriteString(Table(header, rows) + "\n")
	}
	b.WriteString("*moved after*: from the fault to the first answer by another node, median; – where the address stayed. *two owners*: median, and the longest if that is more.\n")
	return b.String()
}

func (f Figures) any(tool, setting string) bool {
	return slices.ContainsFunc(f.Runs, func(r Run) bool { return r.Tool == tool && r.Setting == setting })
}

func (f Figures) silence(tool, setting, fault string) []string {
	runs, _ := f.of(tool, setting, fault)
	if len(runs) == 0 {
		return []string{absent, absent, absent, absent}
	}
	moved := absent
	if m := median(runs, movedOf); m > 0 {
		moved = duration(m)
	}
	owners := duration(median(runs, ownersOf))
	if w := worst(runs, ownersOf); w > median(runs, ownersOf) {
		owners += " (" + duration(w) + ")"
	}
	middle := "**" + duration(median(runs, silenceOf)) + "**"
	if len(runs) < enough {
		middle += fmt.Sprintf(" (%d runs)", len(runs))
	}
	return []string{middle, duration(quantile(runs, 0.99, silenceOf)), moved, owners}
}

// Losses returns the table of the minutes with packet loss.
func (f Figures) Losses() string {
	header := []string{"setting", "tool"}
	for _, fault := range Faults {
		if fault.Loss > 0 {
			header = append(header, fault.Title+": takeovers", "two owners", "longest silence")
		}
	}
	var rows [][]string
	f.eachCell(func(tool, setting string) {
		row, some := []string{setting, tool}, false
		for _, fault := range Faults {
			if fault.Loss == 0 {
				continue
			}
			runs, _ := f.of(tool, setting, fault.Name)
			if len(runs) == 0 {
				row = append(row, absent, absent, absent)
				continue
			}
			some = true
			row = append(row, fmt.Sprintf("**%d**", takeovers(runs)), duration(worst(runs, ownersOf)), duration(worst(runs, silenceOf)))
		}
		if some {
			rows = append(rows, row)
		}
	})
	return Table(header, rows) + "\n*Silence* is the observer's own packets' as well: of its questions and their answers as many are lost.\n"
}

func takeovers(runs []Run) (n int) {
	for _, r := range runs {
		n += r.Takeovers
	}
	return n
}

func (f Figures) eachCell(visit func(tool, setting string)) {
	for _, setting := range Settings {
		for _, tool := range Tools {
			visit(tool, setting)
		}
	}
}

// CostTable returns the table of what the tools use at rest.
func (f Figures) CostTable() string {
	var rows [][]string
	f.eachCell(func(tool, setting string) {
		for _, c := range f.Costs {
			if c.Tool == tool && c.Setting == setting {
				rows = append(rows, []string{setting, tool, fmt.Sprintf("%.0f", c.Packets), fmt.Sprintf("%.1f kB", c.Bytes/1000),
					fmt.Sprintf("%.2f %%", c.CPU), fmt.Sprintf("%.1f MB", c.MB)})
			}
		}
	})
	return Table([]string{"setting", "tool", "packets per second", "bytes per second", "CPU, of one core", "RSS"}, rows)
}

// Conditions returns the table of when and on what every tool was measured.
func (f Figures) Conditions() string {
	var rows [][]string
	f.eachCell(func(tool, setting string) {
		var c conditions
		for _, r := range f.Runs {
			if r.Tool == tool && r.Setting == setting {
				c.add(r)
			}
		}
		if c.good+c.rejected > 0 {
			rows = append(rows, append([]string{setting, tool}, c.row()...))
		}
	})
	return Table([]string{"setting", "tool", "version", "when (UTC)", "kernel", "load", "runs per fault", "runs, all", "rejected"}, rows)
}

type conditions struct {
	version, kernel []string
	from, to        time.Time
	low, high       float64
	good, rejected  int
	perFault        map[string]int
}

func (c *conditions) add(r Run) {
	if c.good+c.rejected == 0 {
		c.from, c.low, c.perFault = r.At, r.Load, map[string]int{}
	}
	if !slices.Contains(c.version, r.Version) {
		c.version = append(c.version, r.Version)
	}
	if !slices.Contains(c.kernel, r.Kernel) {
		c.kernel = append(c.kernel, r.Kernel)
	}
	if r.At.Before(c.from) {
		c.from = r.At
	}
	if r.At.After(c.to) {
		c.to = r.At
	}
	c.low, c.high = min(c.low, r.Load), max(c.high, r.Load)
	if r.Rejected {
		c.rejected++
		return
	}
	c.good++
	if faultOf(r).Loss == 0 {
		c.perFault[r.Fault]++
	}
}

func faultOf(r Run) Fault {
	if i := faultIndex(r.Fault); i >= 0 {
		return Faults[i]
	}
	return Fault{Name: r.Fault, Title: r.Fault}
}

func (c conditions) row() []string {
	least, most := 0, 0
	for _, n := range c.perFault {
		if least == 0 || n < least {
			least = n
		}
		most = max(most, n)
	}
	runs := fmt.Sprint(least)
	if most > least {
		runs = fmt.Sprintf("%d to %d", least, most)
	}
	return []string{strings.Join(c.version, ", "), c.from.Format("2006-01-02 15:04") + " to " + c.to.Format("15:04"), strings.Join(c.kernel, ", "),
		fmt.Sprintf("%.1f to %.1f", c.low, c.high), runs, fmt.Sprint(c.good), fmt.Sprint(c.rejected)}
}
