package agent

import (
	"testing"
	"time"
)

// TestGridFollowsTheHeartbeat: the grid moves to a heartbeat that is out of turn. It does
// not move for one that is a little late. For one that is a little early, it moves by
// just that much.
func TestGridFollowsTheHeartbeat(t *testing.T) {
	var g grid
	if !g.last().IsZero() {
		t.Fatal("a grid before the first heartbeat")
	}
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for _, c := range []struct{ beat, grid time.Duration }{
		{0, 0},
		{200 * time.Millisecond, 0},
		{404 * time.Millisecond, 0},
		{450 * time.Millisecond, 450 * time.Millisecond},
		{650 * time.Millisecond, 450 * time.Millisecond},
		{849 * time.Millisecond, 449 * time.Millisecond},
		{1052 * time.Millisecond, 449 * time.Millisecond},
		{1070 * time.Millisecond, 1070 * time.Millisecond},
	} {
		g.beat(at(c.beat), 200*time.Millisecond)
		if !g.last().Equal(at(c.grid)) {
			t.Errorf("after a heartbeat at %v: %v, want %v", c.beat, g.last().Sub(start), c.grid)
		}
	}
	var fast grid // at the shortest interval the slack is only a part of the interval
	fast.beat(start, 10*time.Millisecond)
	if fast.beat(at(4*time.Millisecond), 10*time.Millisecond); !fast.last().Equal(at(4 * time.Millisecond)) {
		t.Error("half an interval off, and the grid stays")
	}
}
