package control

import "time"

// patience is how long a takeover may go on before a follower is shown it unfinished.
const patience = 3 * time.Second

// follower decides when to show an event to a watching client. Events are shown at once,
// a takeover only when it is complete. A takeover that takes longer than patience is
// shown unfinished, and again when it is complete.
type follower struct {
	patience time.Duration
	open     map[uint64]*openEvent // takeovers that still go on
}

type openEvent struct {
	event Event
	seen  time.Time
	shown bool
}

// see takes in new and changed events and returns those to show now.
func (f *follower) see(now time.Time, events []Event) []Event {
	var show []Event
	for _, e := range events {
		if e.complete() {
			delete(f.open, e.ID)
			show = append(show, e)
			continue
		}
		if f.open == nil {
			f.open = map[uint64]*openEvent{}
		}
		if o := f.open[e.ID]; o != nil {
			o.event = e
		} else {
			f.open[e.ID] = &openEvent{event: e, seen: now}
		}
	}
	return show
}

// due returns the takeovers that have gone on too long, each once, and how long until the
// next one may be due (0: none waits).
func (f *follower) due(now time.Time) (show []Event, next time.Duration) {
	for _, o := range f.open {
		if o.shown {
			continue
		}
		left := f.patience - now.Sub(o.seen)
		if left <= 0 {
			o.shown = true
			show = append(show, o.event)
			continue
		}
		if next == 0 || left < next {
			next = left
		}
	}
	return show, next
}
