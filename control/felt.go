package control

// Felt is how long a phone had nobody to talk to, on a takeover's timeline.
type Felt struct {
	// Since is the mark that it is counted from. From "last heard" it was so long at
	// most; from "lease" too, to a millisecond; from "noticed" so long at least, where a PBX hung:
	// that is noticed late.
	Since string  `json:"since"`
	From  Millis  `json:"from_ms"`
	To    *Millis `json:"to_ms,omitempty"` // absent while it goes on
}

// felt is nil where nobody had held the VIP, or nobody can tell.
//
// What a crash leaves silent began after the last heartbeat; of a sick PBX no more is
// known than when that was noticed; a planned move's old holder answers until it
// lets go, just before the new one gets the lease.
func (e Event) felt() *Felt {
	if e.Kind != Takeover || e.From == "" {
		return nil
	}
	first := "noticed"
	switch e.Reason {
	case "boot":
		return nil
	case "crash":
		first = "last heard"
	case "move", "drain", "failback", "stop":
		first = "lease"
	}
	from, known := e.mark(first)
	if !known {
		first = "noticed"
		if from, known = e.mark(first); !known {
			return nil
		}
	}
	f := &Felt{Since: first, From: from}
	if to, known := e.served(); known {
		for _, name := range []string{"announced", "router proven"} { // phones are behind the router
			if heard, known := e.mark(name); known {
				to = max(to, heard)
			}
		}
		f.To = &to
	}
	return f
}

// served is when the VIP answered at its new holder: its SIP answer, or, where
// that was not asked for, the announcement.
func (e Event) served() (at Millis, known bool) {
	if at, known = e.mark("sip answered"); known {
		return at, true
	}
	if e.Outcome != done {
		return 0, false // it goes on, or nobody knows
	}
	for _, name := range []string{"announced", "bound", "lease"} {
		if at, known = e.mark(name); known {
			return at, true
		}
	}
	return 0, false
}

func (e Event) mark(name string) (Millis, bool) {
	for _, m := range e.Timeline {
		if m.Mark == name {
			return m.At, true
		}
	}
	return 0, false
}

// Proof is how long after it was bound the router reached the VIP at its new
// holder; unknown of no event.
func (e *Event) Proof() (took Millis, known bool) {
	if e == nil {
		return 0, false
	}
	bound, isBound := e.mark("bound")
	proven, isProven := e.mark("router proven")
	return max(proven-bound, 0), isBound && isProven
}
