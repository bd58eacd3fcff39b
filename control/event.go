package control

import (
	"slices"
	"strings"
	"time"
)

// Takeover is the kind of event for a VIP that gets a new holder. It is the only kind
// that is filled in over time.
const Takeover = "takeover"

// The other kinds of events. They are complete when they are added.
const (
	KindRelease  = "release"   // this node let a VIP go, or lost it
	KindHolder   = "holder"    // another node holds a VIP now
	KindVacant   = "vacant"    // nobody holds a VIP
	KindRaised   = "raised"    // the epoch was raised in place, no takeover
	KindSurvivor = "survivor"  // a VIP is held without a majority, or with one again (§4.6)
	KindMove     = "move"      // a planned move started or failed
	KindNode     = "node"      // a node came, went, became fit or unfit
	KindAllUnfit = "all_unfit" // no node is fit, or that is over
	KindQuorum   = "quorum"    // a majority is lost or back
	KindDrain    = "drain"     // drained or undrained
	KindFreeze   = "freeze"    // SIP verdicts are ignored, or count again
	KindConfig   = "config"    // another configuration was seen, or a voter list adopted
	KindVerify   = "verify"    // a VIP did not answer SIP at its holder
	KindBind     = "bind"      // the kernel refused an address
	KindLock     = "lock"      // a lock was obtained here, released, lost or kept
	KindAgent    = "agent"     // started, stopped
	KindKey      = "key"       // a step of a key rotation here; a node with an unknown key
	KindRouter   = "router"    // the router no longer reaches a VIP here, or does again
	KindRival    = "rival"     // another machine claims a VIP held here, or has stopped claiming it
	// KindUnreachable: the router has not reached a VIP here for some time.
	KindUnreachable = "unreachable"
)

// Event is one thing that happened, as seen from Node.
type Event struct {
	ID       uint64 `json:"id"` // set by the journal; rises from 1
	Time     Stamp  `json:"time"`
	Node     string `json:"node"`
	Told     bool   `json:"told,omitempty"` // takeovers only: Node reported it, and its times are Node's
	Kind     string `json:"kind"`
	VIP      string `json:"vip,omitempty"` // the name of a VIP, role or lock
	Epoch    uint64 `json:"epoch,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	Reason   string `json:"reason,omitempty"`   // the cause: boot, crash, sip, move ...
	Text     string `json:"text,omitempty"`     // for people, one line
	Lease    Millis `json:"lease_ms,omitempty"` // takeovers only: the new holder's `lease` when it took over; 0: unknown
	Timeline []Mark `json:"timeline,omitempty"`
	Outcome  string `json:"outcome,omitempty"` // takeovers only: "done" or what went wrong; empty while it goes on

	changed uint64 // the journal's count of changes at this event's last change
}

// Mark is one moment of a takeover's timeline. The marks are "noticed",
// "lease", "bound", "announced", "router proven", one per action such as
// "exec /x", and "sip answered".
type Mark struct {
	Mark   string `json:"mark"`
	At     Millis `json:"at_ms"`             // since the takeover was noticed; for an action, its start
	Took   Millis `json:"took_ms,omitempty"` // actions
	OK     *bool  `json:"ok,omitempty"`      // actions
	Output string `json:"output,omitempty"`  // actions; capped
	Err    string `json:"err,omitempty"`     // actions
}

// Add puts a mark into the timeline, which stays in order of time.
func (e *Event) Add(mark string, at time.Duration) { e.insert(Mark{Mark: mark, At: Millis(at)}) }

// AddAction puts a finished action into the timeline: its start, how long it took, what
// it printed, and why it failed (nil: it succeeded).
func (e *Event) AddAction(name string, at, took time.Duration, output string, err error) {
	ok := err == nil
	m := Mark{Mark: name, At: Millis(at), Took: Millis(took), OK: &ok, Output: output}
	if err != nil {
		m.Err = err.Error()
	}
	e.insert(m)
}

func (e *Event) insert(m Mark) {
	i := len(e.Timeline)
	for i > 0 && e.Timeline[i-1].At > m.At {
		i--
	}
	e.Timeline = slices.Insert(e.Timeline, i, m)
}

// complete reports whether the event is final.
func (e Event) complete() bool { return e.Kind != Takeover || e.Outcome != "" }

// These limits bound what is kept of one event, so that a chatty action does not cost the
// agent its memory. An action that needs its whole output has to log it itself.
const (
	maxMarks  = 64
	maxOutput = 1 << 10 // bytes
	maxText   = 1 << 10 // bytes, of every other string
)

// cap cuts what is too long. It drops marks after the first maxMarks, because the first
// ones show how fast the takeover was.
func (e *Event) cap() {
	for _, s := range []*string{&e.Node, &e.Kind, &e.VIP, &e.From, &e.To, &e.Reason, &e.Text, &e.Outcome} {
		*s = clip(*s, maxText)
	}
	e.Timeline = e.Timeline[:min(len(e.Timeline), maxMarks)]
	for i := range e.Timeline {
		m := &e.Timeline[i]
		m.Mark, m.Output, m.Err = clip(m.Mark, maxText), clip(m.Output, maxOutput), clip(m.Err, maxText)
	}
}

// clip shortens s to at most n bytes of valid UTF-8 and marks the cut. It copies, so that
// the longer string can be freed.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const cut = "…"
	return strings.ToValidUTF8(s[:n-len(cut)], "") + cut
}

// size is roughly how many bytes the event occupies.
func (e *Event) size() int {
	n := 256 + len(e.Node) + len(e.Kind) + len(e.VIP) + len(e.From) + len(e.To) + len(e.Reason) + len(e.Text) + len(e.Outcome)
	for i := range e.Timeline {
		m := &e.Timeline[i]
		n += 96 + len(m.Mark) + len(m.Output) + len(m.Err)
	}
	return n
}
