package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// toldOf adds a takeover that pbx3 reported to the journal.
func toldOf(j *Journal, epoch uint64) {
	e := Event{Time: Stamp{time.Now()}, Node: "pbx3", Told: true, Kind: Takeover, VIP: "vip1", Epoch: epoch, From: "pbx1", To: "pbx3", Reason: "crash", Outcome: "done"}
	e.Add("noticed", 0)
	e.Add("lease", time.Millisecond)
	e.AddAction("exec /x", 2*time.Millisecond, time.Millisecond, "", fmt.Errorf("sipalive events at pbx3 says why"))
	e.Add("sip answered", 5*time.Millisecond)
	j.Add(e)
}

// TestStatusHasTakeovers: the status has the takeovers of every node, the newest last,
// without the actions' output.
func TestStatusHasTakeovers(t *testing.T) {
	_, j, dir := start(t, steady())
	st, err := NewClient(dir).Status(ctxFor(t))
	if err != nil || st.Takeovers != nil {
		t.Fatalf("%+v, %v", st.Takeovers, err)
	}
	for epoch := range uint64(20) {
		toldOf(j, epoch)
		j.Add(Event{Kind: KindNode})
	}
	own := Event{Node: "pbx1", Kind: Takeover, VIP: "vip1", Epoch: 20}
	own.AddAction("exec /y", 0, time.Millisecond, "much to say", nil)
	id := j.Add(own)
	st, err = NewClient(dir).Status(ctxFor(t))
	if err != nil || len(st.Takeovers) != maxTakeovers {
		t.Fatalf("%d takeovers, %v", len(st.Takeovers), err)
	}
	for i, e := range st.Takeovers {
		if want := uint64(21 - maxTakeovers + i); e.Epoch != want || e.Told != (want < 20) {
			t.Errorf("takeover %d has epoch %d, told %v; want %d", i, e.Epoch, e.Told, want)
		}
	}
	if last := st.Takeovers[maxTakeovers-1]; last.ID != id || last.Timeline[0].Output != "" {
		t.Errorf("the last one is %+v", last)
	}
	if kept := j.Last(1)[0]; kept.Timeline[0].Output != "much to say" {
		t.Error("the journal's own event was changed")
	}
}

// TestToldIsNotCounted: each takeover counts in only one node's metrics.
func TestToldIsNotCounted(t *testing.T) {
	r, j := registryOf(rich(), nil)
	toldOf(j, 7)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "sipalive_takeover") || f.GetName() == "sipalive_events_total" {
			t.Errorf("counted: %v", f)
		}
	}
}

// TestToldIsShownAsItsTellers: people see which node reported a takeover, and the feed
// says what phones felt.
func TestToldIsShownAsItsTellers(t *testing.T) {
	j := NewJournal(1)
	toldOf(j, 7)
	var b strings.Builder
	if err := WriteEvent(&b, j.Last(1)[0], time.UTC); err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(b.String(), "\n")
	if _, line, _ := strings.Cut(head, "  "); line != "pbx3  takeover: vip1: pbx1 -> pbx3, epoch 7, crash: done" {
		t.Errorf("shown as %q", head)
	}
	if !strings.Contains(rest, "exec /x: failed after 1.0 ms: sipalive events at pbx3 says why") {
		t.Errorf("its timeline is\n%s", rest)
	}
	if f := j.Last(1)[0].felt(); f == nil || f.To == nil || time.Duration(*f.To) != 5*time.Millisecond {
		t.Errorf("felt %+v", f)
	}
}

// The page and the status show the last takeovers however many other events came after.
func TestTakeoversOutliveOtherEvents(t *testing.T) {
	j := NewJournal(50)
	for epoch := range uint64(20) {
		j.Add(Event{Kind: Takeover, VIP: "vip1", Epoch: epoch})
	}
	for range 3000 {
		j.Add(Event{Kind: KindLock})
	}
	j.Add(Event{Kind: Takeover, VIP: "vip1", Epoch: 20})
	epochs := func(events []Event) (list []uint64) {
		for _, e := range events {
			if e.Kind == Takeover {
				list = append(list, e.Epoch)
			}
		}
		return list
	}
	want := []uint64{9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	if got := epochs(j.takeovers(maxTakeovers)); !slices.Equal(got, want) {
		t.Errorf("takeovers of epochs %v, want %v", got, want)
	}
	first, _ := j.opening(30, maxTakeovers)
	if got := epochs(first); !slices.Equal(got, want) || len(first) != 11+30 {
		t.Errorf("%d events, with takeovers of epochs %v, want 41, with %v", len(first), got, want)
	}
	if got := j.Last(1000); len(got) != 50 {
		t.Errorf("%d events, want 50", len(got))
	}
}
