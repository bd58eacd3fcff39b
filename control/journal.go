package control

import (
	"context"
	"slices"
	"sync"
)

// What a journal keeps at most. The bytes are far above what 1,000 events of
// a usual kind take; they bound what chatty actions can cost (the whole agent
// is promised to stay within 25 MB).
const (
	DefaultEvents = 1000
	maxBytes      = 2 << 20
)

// Journal keeps the newest events in memory. It is safe for concurrent use,
// and a reader never makes a writer wait for longer than it takes to copy
// pointers: an event that is in the journal is not changed any more, an update
// replaces it.
type Journal struct {
	mu      sync.Mutex
	max     int
	events  []*Event // ids without gaps, rising
	bytes   int      // sum of their sizes
	older   []*Event // the newest takeovers that are not among events any more
	lastID  uint64
	changes uint64        // counts additions and updates
	changed chan struct{} // closed at the next change; nil while nobody waits
	tally   *tally
}

// NewJournal keeps up to max events, at least one.
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

// Update lets fn change the event of that id; its ID stays. It reports false
// where the journal has forgotten the event. fn must not use the journal.
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

// forget drops the oldest events, never the newest. A few takeovers stay, whatever
// came after them: a command that locks each minute leaves three thousand events a day.
func (j *Journal) forget() {
	for len(j.events) > 1 && (len(j.events) > j.max || j.bytes > maxBytes) {
		if j.events[0].Kind == Takeover {
			j.older = append(j.older[max(0, len(j.older)-maxTakeovers+1):], j.events[0].quiet())
		}
		j.bytes -= j.events[0].size()
		j.events[0] = nil // the array lives on until append outgrows it
		j.events = j.events[1:]
	}
}

// Last returns the newest n events, oldest first. They share memory with the
// journal and must not be changed.
func (j *Journal) Last(n int) []Event {
	events, _ := j.opening(n, 0)
	return events
}

// takeovers returns the newest n takeovers of all nodes, oldest first, without what
// their actions printed.
func (j *Journal) takeovers(n int) []Event {
	newest, _ := j.opening(0, n)
	for i := range newest {
		newest[i] = *newest[i].quiet()
	}
	return newest
}

// quiet is the same without what its actions printed, which may be much.
func (e *Event) quiet() *Event {
	q := *e
	q.Timeline = slices.Clone(e.Timeline)
	for m := range q.Timeline {
		q.Timeline[m].Output = ""
	}
	return &q
}

// opening returns the newest n events and, where they are older, the newest
// takeovers, up to that many in all; oldest first; and the count of changes, for wait.
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

// wait blocks until something changed after the count since and returns what
// changed, oldest event first, with the new count; or the error of ctx.
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
