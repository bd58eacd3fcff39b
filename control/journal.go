package control

import (
	"context"
	"slices"
	"sync"
)

// A journal keeps at most this much. The byte limit is far above what 1,000 usual events
// take. It limits what chatty actions can cost (design promise: the whole agent stays
// within 25 MB).
const (
	DefaultEvents = 1000
	maxBytes      = 2 << 20
)

// Journal keeps the newest events in memory. It is safe for concurrent use. A reader
// makes a writer wait only while it copies pointers: an event in the journal never
// changes, an update replaces it.
type Journal struct {
	mu      sync.Mutex
	max     int
	events  []*Event // ids without gaps, rising
	bytes   int      // sum of their sizes
	older   []*Event // the newest takeovers that are no longer in events
	lastID  uint64
	changes uint64        // counts additions and updates
	changed chan struct{} // closed at the next change; nil while nobody waits
	tally   *tally
}

// NewJournal returns a Journal that keeps up to max events, at least one.
func NewJournal(max int) *Journal { return &Journal{max: max, tally: newTally()} }

// Add appends a copy of e and returns its id.
func (j *Journal) Add(e Event) uint64 {
	e.Timeline = slices.Clone(e.Timeline)
	e.cap()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lastID++
	e.ID = j.lastID
	j.events = append(j.events, &e)
	j.bytes += e.size()
	j.tally.see(nil, &e)
	j.change(&e)
	j.forget()
	return e.ID
}

// Update lets fn change the event with this id; the ID itself stays. It returns false if
// the journal has already dropped the event. fn must not use the journal.
func (j *Journal) Update(id uint64, fn func(*Event)) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.events) == 0 || id < j.events[0].ID || id > j.lastID {
		return false
	}
	at := &j.events[id-j.events[0].ID]
	e := **at
	e.Timeline = slices.Clone(e.Timeline)
	fn(&e)
	e.ID = id
	e.cap()
	j.bytes += e.size() - (*at).size()
	j.tally.see(*at, &e)
	*at = &e
	j.change(&e)
	j.forget()
	return true
}

func (j *Journal) change(e *Event) {
	j.changes++
	e.changed = j.changes
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

// forget drops the oldest events, never the newest one. A few takeovers always stay: a
// command that takes a lock every minute leaves three thousand events a day.
func (j *Journal) forget() {
	for len(j.events) > 1 && (len(j.events) > j.max || j.bytes > maxBytes) {
		if j.events[0].Kind == Takeover {
			j.older = append(j.older[max(0, len(j.older)-maxTakeovers+1):], j.events[0].quiet())
		}
		j.bytes -= j.events[0].size()
		j.events[0] = nil // append keeps the array until it is full; let the event go
		j.events = j.events[1:]
	}
}

// Last returns the newest n events, oldest first. They share memory with the
// journal and must not be changed.
func (j *Journal) Last(n int) []Event {
	events, _ := j.opening(n, 0)
	return events
}

// takeovers returns the newest n takeovers of all nodes, oldest first, without their
// actions' output.
func (j *Journal) takeovers(n int) []Event {
	newest, _ := j.opening(0, n)
	for i := range newest {
		newest[i] = *newest[i].quiet()
	}
	return newest
}

// quiet returns a copy without the actions' output, which may be long.
func (e *Event) quiet() *Event {
	q := *e
	q.Timeline = slices.Clone(e.Timeline)
	for m := range q.Timeline {
		q.Timeline[m].Output = ""
	}
	return &q
}

// opening returns the newest n events, oldest first, and the count of changes to pass to
// wait. If fewer than the wanted takeovers are among them, older ones come first.
func (j *Journal) opening(n, takeovers int) ([]Event, uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := len(j.events) - min(max(n, 0), len(j.events))
	kept := slices.Clone(j.events[first:])
	for _, e := range kept {
		if e.Kind == Takeover {
			takeovers--
		}
	}
	before := append(slices.Clone(j.older), j.events[:first]...)
	for i := len(before) - 1; i >= 0 && takeovers > 0; i-- {
		if before[i].Kind == Takeover {
			kept = slices.Insert(kept, 0, before[i])
			takeovers--
		}
	}
	return values(kept), j.changes
}

// wait blocks until something has changed after the count since. It returns the changed
// events, oldest first, and the new count; or the error of ctx.
func (j *Journal) wait(ctx context.Context, since uint64) ([]Event, uint64, error) {
	for {
		j.mu.Lock()
		if j.changes > since {
			var changed []*Event
			for _, e := range j.events {
				if e.changed > since {
					changed = append(changed, e)
				}
			}
			changes := j.changes
			j.mu.Unlock()
			return values(changed), changes, nil
		}
		if j.changed == nil {
			j.changed = make(chan struct{})
		}
		changed := j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, since, ctx.Err()
		}
	}
}

func values(events []*Event) []Event {
	out := make([]Event, len(events))
	for i, e := range events {
		out[i] = *e
	}
	return out
}
