package elect

import (
	"math"
	"time"
)

// Timeline tells the other nodes' agents of a takeover by its sender that is over:
// what came when, so that the page of every node draws it. It decides nothing.
type Timeline struct {
	VIP      VIPID
	Epoch    Epoch
	Previous Node // empty: nobody
	Cause    Cause
	Why      Why
	Ago      Micros // since the need was noticed, when it was sent: clocks need not agree
	Noticed  Micros // what the need was noticed after the first moment; all else counts from there, too
	Marks    []Mark
	Actions  []ActionMark // at most MaxActionMarks, the failed ones first of all
	Left     uint16       // actions that found no room
	Outcome  Brief        // "done", or what went wrong
}

// MaxActionMarks is how many actions a timeline carries. With them and names at their
// longest it fits into a datagram of 1200 bytes.
const MaxActionMarks = 8

// Mark is a moment of a timeline.
type Mark struct {
	Kind MarkKind
	At   Micros
}

// ActionMark is an action of a timeline: its words stay where it ran.
type ActionMark struct {
	Action   Brief
	At, Took Micros
	OK       bool
}

// Brief is words of at most 63 bytes that may stand in a log line.
type Brief string

// Micros is a time in microseconds, 71 minutes at most.
type Micros uint32

// InMicros rounds d down; it fails where d is negative or too long.
func InMicros(d time.Duration) (us Micros, fits bool) {
	if d < 0 || d.Microseconds() > math.MaxUint32 {
		return 0, false
	}
	return Micros(d.Microseconds()), true
}

// Duration is the time it stands for.
func (u Micros) Duration() time.Duration { return time.Duration(u) * time.Microsecond }

// MarkKind is what a mark says, by its String.
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

// Tell has the machine send a timeline to every peer that is there.
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
