package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestJournalKeepsTheNewest(t *testing.T) {
	j := NewJournal(3)
	if got := j.Last(5); len(got) != 0 {
		t.Fatalf("empty journal has %v", got)
	}
	for i := uint64(1); i <= 5; i++ {
		if id := j.Add(Event{ID: 99, Text: fmt.Sprint(i)}); id != i {
			t.Fatalf("event %d got id %d", i, id)
		}
	}
	for n, want := range map[int]string{-1: "", 0: "", 2: "45", 3: "345", 100: "345"} {
		got := ""
		for _, e := range j.Last(n) {
			got += e.Text
		}
		if got != want {
			t.Errorf("Last(%d) = %q, want %q", n, got, want)
		}
	}
	for _, id := range []uint64{0, 1, 2, 6} {
		if j.Update(id, func(*Event) { t.Errorf("event %d, which is not there, is updated", id) }) {
			t.Errorf("Update(%d) says done", id)
		}
	}
}

func TestJournalUpdateReplaces(t *testing.T) {
	j := NewJournal(10)
	var e Event
	e.Kind = Takeover
	e.Add("noticed", 0)
	id := j.Add(e)
	e.Timeline[0].Mark = "mine" // must not change the journal's copy
	before := j.Last(1)
	if !j.Update(id, func(e *Event) { e.ID = 77; e.Timeline[0].At = 5; e.Add("lease", time.Second); e.Outcome = "done" }) {
		t.Fatal("event not found")
	}
	after := j.Last(1)
	if before[0].Outcome != "" || len(before[0].Timeline) != 1 || before[0].Timeline[0].At != 0 || before[0].Timeline[0].Mark != "noticed" {
		t.Errorf("a reader's event changed under it: %+v", before[0])
	}
	if after[0].ID != id || after[0].Outcome != "done" || len(after[0].Timeline) != 2 {
		t.Errorf("after the update: %+v", after[0])
	}
}

func TestJournalBoundsMemory(t *testing.T) {
	j := NewJournal(DefaultEvents)
	huge := strings.Repeat("x", 1<<20)
	for range 200 {
		e := Event{Kind: Takeover, Text: huge}
		for i := range 100 {
			e.AddAction(huge, time.Duration(i), 0, huge, errors.New(huge))
		}
		id := j.Add(e)
		j.Update(id, func(e *Event) { e.AddAction("late", time.Hour, 0, huge, nil) })
	}
	total := 0
	for _, e := range j.Last(DefaultEvents) {
		total += e.size()
		if len(e.Timeline) != maxMarks {
			t.Fatalf("event keeps %d marks", len(e.Timeline))
		}
	}
	if total > maxBytes || total != j.bytes {
		t.Errorf("journal keeps %d bytes and counts %d, may keep %d", total, j.bytes, maxBytes)
	}
	if total < maxBytes/2 {
		t.Errorf("journal keeps only %d bytes", total)
	}
}

func TestJournalWait(t *testing.T) {
	j := NewJournal(10)
	j.Add(Event{Text: "a"})
	_, since := j.opening(0, 0)
	type result struct {
		events []Event
		err    error
	}
	woken := make(chan result)
	go func() {
		events, _, err := j.wait(context.Background(), since)
		woken <- result{events, err}
	}()
	eventually(t, "a waiter", func() bool { j.mu.Lock(); defer j.mu.Unlock(); return j.changed != nil })
	j.Update(1, func(e *Event) { e.Text = "b" })
	if r := <-woken; r.err != nil || len(r.events) != 1 || r.events[0].Text != "b" {
		t.Errorf("woken with %+v", r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := j.wait(ctx, since+1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with its context ended: %v", err)
	}
}

// A writer and readers at once: nothing is lost, nothing is torn (run with -race).
func TestJournalConcurrently(t *testing.T) {
	const events, updates, readers = 400, 5, 4
	j := NewJournal(events)
	ctx := ctxFor(t)
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			seen, since := map[uint64]int{}, uint64(0)
			for done := 0; done < events; {
				var changed []Event
				var err error
				if changed, since, err = j.wait(ctx, since); err != nil {
					t.Errorf("after %d of %d events: %v", done, events, err)
					return
				}
				for _, e := range changed {
					if len(e.Timeline) < seen[e.ID] {
						t.Errorf("event %d lost marks", e.ID)
					}
					seen[e.ID] = len(e.Timeline)
					if e.Outcome != "" {
						done++
					}
				}
			}
		})
	}
	for range events {
		id := j.Add(Event{Kind: Takeover})
		for i := range updates {
			j.Update(id, func(e *Event) { e.Add("mark", time.Duration(i)) })
		}
		j.Update(id, func(e *Event) { e.Outcome = "done" })
	}
	wg.Wait()
}

func BenchmarkJournalAdd(b *testing.B) {
	j := NewJournal(DefaultEvents)
	for b.Loop() {
		j.Add(Event{Node: "pbx1", Kind: KindNode, Text: "pbx2 silent"})
	}
}
