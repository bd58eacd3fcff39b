package control

// Felt is how long a phone had nobody to talk to, as times on a takeover's timeline.
type Felt struct {
	// Since is the mark the time is counted from. Counted from "last heard" or (to within
	// a millisecond) from "lease", the result is an upper bound. Counted from "noticed"
	// it is a lower bound if a PBX hung, because a hang is noticed late.
	Since string  `json:"since"`
	From  Millis  `json:"from_ms"`
	To    *Millis `json:"to_ms,omitempty"` // absent while it goes on
}

// felt returns nil if nobody held the VIP before, or if nobody can tell.
//
// The start depends on the cause. After a crash the silence began after the last
// heartbeat. For a sick PBX only the time it was noticed is known. In a planned move the
// old holder answers until it lets go, just before the new one gets the lease.
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

// served returns when the VIP answered at its new holder: the SIP answer, or the
// announcement if there was no SIP check.
func (e Event) served() (at Millis, known bool) {
	if at, known = e.mark("sip answered"); known {
		return at, true
	}
	if e.Outcome != done {
		return 0, false // it still goes on, or nobody knows
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

// Proof returns how long after the bind the router reached the VIP at its new holder. For
// a nil event it is unknown.
func (e *Event) Proof() (took Millis, known bool) {
	if e == nil {
		return 0, false
	}
	bound, isBound := e.mark("bound")
	proven, isProven := e.mark("router proven")
	return max(proven-bound, 0), isBound && isProven
}
