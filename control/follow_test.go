package control

import (
	"slices"
	"testing"
	"time"
)

func TestFollowerShowsTakeoversWhenComplete(t *testing.T) {
	f := follower{patience: 3 * time.Second}
	t0 := at("00:00:00.000")
	after := func(d time.Duration) time.Time { return t0.Add(d) }
	ids := func(events []Event) (out []uint64) {
		for _, e := range events {
			out = append(out, e.ID)
		}
		return out
	}
	expect := func(what string, got []Event, want ...uint64) {
		t.Helper()
		if !slices.Equal(ids(got), want) {
			t.Errorf("%s: shows %v, want %v", what, ids(got), want)
		}
	}
	quick, slow := Event{ID: 1, Kind: Takeover}, Event{ID: 2, Kind: Takeover}
	expect("start", f.see(t0, []Event{quick, {ID: 3, Kind: KindNode}}), 3)
	expect("second starts", f.see(after(time.Second), []Event{slow}))
	if show, next := f.due(after(time.Second)); len(show) != 0 || next != 2*time.Second {
		t.Errorf("due after 1 s: %v, next in %v", ids(show), next)
	}
	quick.Outcome = "done"
	expect("first complete", f.see(after(2*time.Second), []Event{quick}), 1)
	slow.Text = "newer"
	expect("progress", f.see(after(3*time.Second), []Event{slow}))
	show, next := f.due(after(4 * time.Second))
	expect("second drags on", show, 2)
	if next != 0 || show[0].Text != "newer" {
		t.Errorf("drags on: %+v, next in %v", show, next)
	}
	expect("progress is not shown twice", f.see(after(5*time.Second), []Event{slow}))
	show, _ = f.due(after(time.Hour))
	expect("shown once", show)
	slow.Outcome = "failed"
	expect("second complete", f.see(after(6*time.Second), []Event{slow}), 2)
	if len(f.open) != 0 {
		t.Errorf("follower remembers %d takeovers that are over", len(f.open))
	}
}
