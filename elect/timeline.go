package elect

import (
	"math"
	"time"
)

// Timeline tells the other nodes' agents about a takeover by its sender that is over:
// what happened when, so that every node's page can draw it. It decides nothing.
type Timeline struct {
	VIP      VIPID
	Epoch    Epoch
	Previous Node // empty: nobody
	Cause    Cause
	Why      Why
	Ago      Micros // from when the need was noticed until this was sent: clocks need not agree
	Noticed  Micros // when the need was noticed; like every other time here it counts from the first moment
	Marks    []Mark
	Actions  []ActionMark // at most MaxActionMarks, the failed ones first of all
	Left     uint16       // how many actions found no room
	Outcome  Brief        // "done", or what went wrong
}

// MaxActionMarks is how many actions a timeline carries. With so many, and names at their
// longest, it fits into a datagram of 1200 bytes.
const MaxActionMarks = 8

// Mark is a moment of a timeline.
type Mark struct {
	Kind MarkKind
	At   Micros
}

// ActionMark is an action of a timeline. What the action printed stays where it ran.
type ActionMark struct {
	Action   Brief
	At, Took Micros
	OK       bool
}

// Brief is text of at most 63 bytes that may stand in a log line.
type Brief string

// Micros is a time in microseconds, 71 minutes at most.
type Micros uint32

// InMicros rounds d down to microseconds. fits is false if d is negative or too long.
func InMicros(d time.Duration) (us Micros, fits bool) {
	if d < 0 || d.Microseconds() > math.MaxUint32 {
		return 0, false
	}
	return Micros(d.Microseconds()), true
}

// Duration returns u as a time.Duration.
func (u Micros) Duration() time.Duration { return time.Duration(u) * time.Microsecond }

// MarkKind says what a mark marks; its String is the word for it.
type MarkKind uint8

// The marks of a timeline.
const (
	MarkLastHeard    MarkKind = iota // last sign of life of the old holder
	MarkNoticed                      // the need showed
	MarkLease                        // a majority granted
	MarkBound                        // the kernel has the address
	MarkAnnounced                    // the first announcement is on the wire
	MarkRouterProven                 // the router reaches it
	MarkSIPAnswered                  // it answered OPTIONS
	markEnd
)

func (k MarkKind) String() string {
	return [...]string{"last heard", "noticed", "lease", "bound", "announced", "router proven", "sip answered"}[min(k, markEnd-1)]
}

func (Timeline) message() {}

// Tell has the machine send a timeline to every live peer.
type Tell struct{ Timeline }

func (Tell) event() {}

func (m *Machine) onTell(e Tell) {
	if m.known[e.VIP] == nil {
		return // left the configuration meanwhile
	}
	for _, p := range m.peers {
		if p != m.self && p.alive {
			m.send(p, e.Timeline)
		}
	}
}
