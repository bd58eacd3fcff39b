package sipcheck

import (
	"testing"
	"time"
)

func fixed(grid time.Time) func() time.Time { return func() time.Time { return grid } }

// TestGrid: a regular probe starts at a whole interval after the grid, and at most one
// interval after the probe before.
func TestGrid(t *testing.T) {
	grid := time.Now()
	at := func(ms int) time.Time { return grid.Add(time.Duration(ms) * time.Millisecond) }
	p := NewProber(Target{Interval: 200 * time.Millisecond}, Options{Grid: fixed(grid)})
	for started, want := range map[int]int{0: 200, 1: 200, 199: 200, 200: 400, 1234: 1400, -50: 150} {
		if got := p.regular(at(started)); !got.Equal(at(want)) {
			t.Errorf("after one at %d ms: %v, want %d ms", started, got.Sub(grid), want)
		}
	}
	p = NewProber(Target{Interval: 200 * time.Millisecond}, Options{})
	if got := p.regular(at(33)); !got.Equal(at(233)) {
		t.Errorf("without a grid: %v", got.Sub(grid))
	}
}

// TestProbersOnAGridMeet: probers that start one after another soon probe together.
func TestProbersOnAGridMeet(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	target, grid := quick(s.addr), time.Now()
	target.Interval = 50 * time.Millisecond
	var probers []*running
	for range 3 {
		probers = append(probers, launch(t, target, Options{Grid: fixed(grid), Every: true}))
		time.Sleep(7 * time.Millisecond) // each has another phase
	}
	for _, p := range probers {
		early := 0
		for range 8 {
			if r := p.next(); r.Started.Sub(grid)%target.Interval > target.Interval/2 {
				early++ // or so late that the machine is to blame
			}
		}
		if early > 3 {
			t.Errorf("%d of 8 probes far from the grid", early)
		}
	}
}
