package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sipalive/control"
	"sipalive/elect"
)

// marks maps the journal's names of marks to their kinds.
var marks = func() map[string]elect.MarkKind {
	all := map[string]elect.MarkKind{}
	for k := elect.MarkLastHeard; k <= elect.MarkSIPAnswered; k++ {
		all[k.String()] = k
	}
	return all
}()

// timelineOf returns a takeover's event in the form in which the other nodes are told of
// it, except for how long ago it was. It does not fit if it took over 71 minutes
// (elect.InMicros).
func timelineOf(of elect.Transition, ev control.Event) (m elect.Timeline, fits bool) {
	m = elect.Timeline{VIP: of.VIP, Epoch: of.Epoch, Previous: of.Previous, Cause: of.Cause, Why: of.Why, Outcome: brief(ev.Outcome)}
	fits = true
	us := func(d control.Millis) elect.Micros {
		v, ok := elect.InMicros(time.Duration(d))
		fits = fits && ok
		return v
	}
	first := control.Millis(0)
	for _, k := range ev.Timeline {
		first = min(first, k.At)
	}
	m.Noticed = us(-first)
	for _, k := range ev.Timeline {
		if k.OK != nil {
			m.Actions = append(m.Actions, elect.ActionMark{Action: brief(k.Mark), At: us(k.At - first), Took: us(k.Took), OK: *k.OK})
		} else if kind, known := marks[k.Mark]; known && !slices.ContainsFunc(m.Marks, func(had elect.Mark) bool { return had.Kind == kind }) {
			m.Marks = append(m.Marks, elect.Mark{Kind: kind, At: us(k.At - first)})
		}
	}
	for len(m.Actions) > elect.MaxActionMarks {
		i := len(m.Actions) - 1
		for i > 0 && !m.Actions[i].OK {
			i--
		}
		m.Actions = slices.Delete(m.Actions, i, i+1)
		m.Left++
	}
	return m, fits
}

// maxBrief is the longest elect.Brief, in bytes.
const maxBrief = 63

// brief cleans a text for people and cuts it to maxBrief.
func brief(s string) elect.Brief {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= maxBrief {
		return elect.Brief(s)
	}
	const cut = "…"
	n := maxBrief - len(cut)
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return elect.Brief(s[:n] + cut)
}

// maxLeft is the most actions that a timeline may have left out: no journal keeps more.
const maxLeft = 64

// sound reports whether what another node tells can be true: each mark is there at most
// once, and the marks that every takeover has are there.
func sound(m elect.Timeline) bool {
	had := map[elect.MarkKind]bool{}
	for _, k := range m.Marks {
		if had[k.Kind] {
			return false
		}
		had[k.Kind] = true
	}
	return had[elect.MarkNoticed] && had[elect.MarkLease] && m.Epoch != 0 && m.Left <= maxLeft
}

// eventOf turns what another node tells, heard now, into an event for this node's
// journal.
func eventOf(h hearsay, vip string, now time.Time) control.Event {
	ev := control.Event{Time: control.Stamp{Time: now.Add(-h.Ago.Duration())}, Node: string(h.from), Told: true, Kind: control.Takeover, VIP: vip,
		Epoch: uint64(h.Epoch), From: string(h.Previous), To: string(h.from), Text: h.Why.String(), Outcome: string(h.Outcome)}
	if h.Cause != elect.CauseNone {
		ev.Reason = h.Cause.String()
	}
	if h.Left > 0 {
		ev.Text = strings.TrimPrefix(fmt.Sprintf("%s, %d more actions", ev.Text, h.Left), ", ")
	}
	at := func(us elect.Micros) time.Duration { return us.Duration() - h.Noticed.Duration() }
	for _, k := range h.Marks {
		ev.Add(k.Kind.String(), at(k.At))
	}
	for _, k := range h.Actions {
		var err error
		if !k.OK {
			err = errors.New("sipalive events at " + string(h.from) + " says why")
		}
		ev.AddAction(string(k.Action), at(k.At), k.Took.Duration(), "", err)
	}
	return ev
}
