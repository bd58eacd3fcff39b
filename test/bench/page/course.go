package page

import (
	"fmt"
	"time"
)

// shown is for how long after a fault a plot of courses runs, by setting.
var shown = map[string]time.Duration{"default": 7 * time.Second, "100ms": 2500 * time.Millisecond, "50ms": 2500 * time.Millisecond, "10ms": 2500 * time.Millisecond}

// Courses draws, for one setting, what the phone heard after each fault: for each tool
// the run with the median silence. It returns "" if there are no runs.
func (f Figures) Courses(setting string) string {
	if !f.any("sipalive", setting) && !f.any("keepalived", setting) && !f.any("ucarp", setting) {
		return ""
	}
	end := shown[setting]
	x := func(d time.Duration) float64 {
		return plotLeft + 100 + float64(min(d, end))/float64(end)*(plotRight-plotLeft-60)
	}
	rows := newCourseRows(f, setting)
	top, bottom := 62.0, 62+rows.height
	s := draw(plotWidth, bottom+30, setting+": silence over time")
	s.text("title", 12, 22, "Silence over time, "+setting+": what the phone heard after each fault, run of the median silence")
	legend(s)
	for d := time.Duration(0); d <= end; d += 500 * time.Millisecond * (1 + end/(5*time.Second)) {
		s.line("grid", x(d), top, x(d), bottom)
		s.text("faint mid", x(d), bottom+18, tickLabel(d))
	}
	for _, r := range rows.list {
		y := top + r.y
		if r.title != "" {
			s.text("", 12, y+10, r.title)
		}
		s.text("faint", 146, y+10, r.tool)
		for _, c := range r.run.Course {
			from, to := max(c.From, 0), min(c.To, end)
			if to <= from {
				continue
			}
			left, width := x(from), max(x(to)-x(from), 1.5)
			if c.Who == Both {
				s.rect("both", left, y+12, width, 4)
			} else {
				s.rect(classOf(c.Who), left, y, width, 11)
			}
		}
	}
	return s.end()
}

func classOf(who string) string {
	switch who {
	case Nobody:
		return "nobody"
	case home:
		return "home"
	}
	return "other"
}

// home is the node that each fault hits.
const home = "pbx1"

func legend(s *svg) {
	at := 146.0
	for _, l := range []struct{ class, text string }{{"home", "the old holder answers"}, {"nobody", "silence"}, {"other", "another answers"}, {"both", "two owners"}} {
		height := 11.0
		if l.class == "both" {
			height = 4
		}
		s.rect(l.class, at, 45-height, 16, height)
		s.text("faint", at+22, 45, l.text)
		at += 50 + 7.2*float64(len(l.text))
	}
}

type courseRow struct {
	title, tool string
	run         Run
	y           float64
}

type courseRows struct {
	list   []courseRow
	height float64
}

func newCourseRows(f Figures, setting string) (c courseRows) {
	for _, fault := range Faults {
		title := fault.Title
		for _, tool := range Tools {
			runs, _ := f.of(tool, setting, fault.Name)
			if fault.Loss > 0 || len(runs) == 0 {
				continue
			}
			c.list = append(c.list, courseRow{title, tool, middle(runs), c.height})
			c.height += 20
			title = ""
		}
		if title == "" {
			c.height += 8
		}
	}
	return c
}

// Plots returns the drawings by file name, and the names in the order of Embed.
func (f Figures) Plots() (names []string, drawings map[string]string) {
	drawings = map[string]string{}
	add := func(name, drawing string) {
		if drawing != "" {
			names = append(names, name)
			drawings[name] = drawing
		}
	}
	for _, setting := range Settings {
		add("peers-course-"+setting+".svg", f.Courses(setting))
	}
	for _, fault := range Faults {
		if fault.Loss == 0 {
			add("peers-"+fault.Name+".svg", f.Distribution(fault))
		}
	}
	return names, drawings
}

// Embed returns the Markdown that shows the plots in the page.
func (f Figures) Embed() string {
	names, _ := f.Plots()
	text := ""
	for _, n := range names {
		text += fmt.Sprintf("![%s](benchmarks/%s)\n\n", n, n)
	}
	return text
}
