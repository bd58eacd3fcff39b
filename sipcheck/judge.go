package sipcheck

// judge turns outcomes into a verdict. It is pure: the prober passes in each outcome.
type judge struct {
	fall, rise int

	verdict Verdict
	wasUp   bool // the target has been up: the first good answer after a start counts at once
	good    int  // good answers in a row
	bad     int  // outcomes in a row that were not good
	kind    Outcome
	run     int // outcomes of that kind in a row
}

// note takes one outcome and returns whether the verdict changed.
func (j *judge) note(o Outcome) bool {
	before := j.verdict
	if o != j.kind {
		j.kind, j.run = o, 0
	}
	j.run++
	if o == Answered {
		j.good, j.bad = j.good+1, 0
		if !j.wasUp || j.good >= j.rise {
			j.verdict, j.wasUp = Up, true
		}
		return j.verdict != before
	}
	j.good, j.bad = 0, j.bad+1
	switch {
	case o == PortRefused:
		j.verdict = Refused
	case j.down() && j.run < j.fall:
		// A dead server stays Silent, Refused or Unhealthy until the new kind of outcome
		// lasts. Otherwise alternating 503 and silence would be a change each time.
	case j.bad >= j.fall && o == Listed:
		j.verdict = Unhealthy
	case j.bad >= j.fall:
		j.verdict = Silent
	}
	return j.verdict != before
}

func (j *judge) down() bool {
	return j.verdict == Silent || j.verdict == Refused || j.verdict == Unhealthy
}

// suspects reports whether the last probe stayed unanswered and the verdict is not Silent
// yet.
func (j *judge) suspects() bool {
	return j.bad > 0 && j.kind == Unanswered && j.verdict != Silent
}
