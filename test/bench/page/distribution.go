package page

import (
	"fmt"
	"math"
	"time"
)

// The layout of a plot of distributions, in pixels.
const (
	plotLeft, plotRight = 150.0, 760.0
	plotWidth           = 860.0
	rowHeight           = 22.0
)

// decade places a silence on a logarithmic axis from 1 ms to 60 s. A shorter one is at
// the left end.
func decade(d time.Duration) float64 {
	low, high := math.Log10(0.001), math.Log10(60)
	at := (math.Log10(max(d.Seconds(), 0.001)) - low) / (high - low)
	return plotLeft + min(at, 1)*(plotRight-plotLeft)
}

// Distribution draws every run of a fault, one row for each tool and setting. It returns
// "" if there are none.
func (f Figures) Distribution(fault Fault) string {
	type row struct {
		tool, setting string
		runs          []Run
	}
	var rows []row
	f.eachCell(func(tool, setting string) {
		if runs, _ := f.of(tool, setting, fault.Name); len(runs) > 0 {
			rows = append(rows, row{tool, setting, runs})
		}
	})
	if len(rows) == 0 {
		return ""
	}
	top, bottom := 40.0, 40+rowHeight*float64(len(rows))
	s := draw(plotWidth, bottom+30, fault.Title+": silence at the phone, each run")
	s.text("title", 12, 22, fault.Title+": silence at the phone, each run and the median")
	for _, tick := range []time.Duration{1, 10, 100, 1000, 10000} {
		d := tick * time.Millisecond
		s.line("grid", decade(d), top, decade(d), bottom)
		label := tickLabel(d)
		if d == time.Millisecond { // shorter silences are there too
			label = "≤ " + label
		}
		s.text("faint mid", decade(d), bottom+18, label)
	}
	for i, r := range rows {
		y := top + rowHeight*(float64(i)+0.5)
		s.text("", 12, y+4, r.tool)
		s.text("faint end", plotLeft-12, y+4, r.setting)
		for j, run := range r.runs {
			s.dot(r.tool, decade(run.Silence), y+float64(j%3-1)*4, 4)
		}
		m := median(r.runs, silenceOf)
		s.line("median", decade(m), y-9, decade(m), y+9)
		s.text("end", plotWidth-12, y+4, duration(m))
	}
	return s.end()
}

func tickLabel(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%g s", d.Seconds())
	}
}
