package agent

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sipalive/arp"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/hooks"
)

// TestMarksAreDocumented: docs/events.md lists every mark of a timeline, and no other,
// and timelines tell every mark.
func TestMarksAreDocumented(t *testing.T) {
	var known []string
	for _, k := range enumerated(elect.MarkLastHeard) {
		known = append(known, k.String())
	}
	slices.Sort(known)
	if diff := cmp.Diff(known, documented(t, "events.md", "timeline")); diff != "" {
		t.Errorf("marks (-code +docs/events.md):\n%s", diff)
	}
	if len(marks) != len(known) {
		t.Errorf("%d kinds of marks are told, want %d", len(marks), len(known))
	}
}

// takesOver makes a recording of pbx3 take vip1 over after a crash of pbx1, 10 ms ago.
func takesOver(r *recording, e elect.Epoch) {
	ms := time.Millisecond
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: e, Previous: "pbx1", Cause: elect.CauseCrash,
		Why: elect.WhySpare, Noticed: r.at(-1010 * ms), Vacant: r.at(-10 * ms)}})
	r.bound(vip1, e, r.at(-7*ms), r.at(-6*ms), true)
	r.action(vip1, hooks.Acquire, e, hooks.Outcome{Action: "exec /x", Started: int64(r.at(-5 * ms)), Took: ms, OK: true})
	r.action(vip1, hooks.Acquire, e, hooks.Outcome{Action: "exec /y", Started: int64(r.at(-4 * ms)), Took: 2 * ms, Output: "odd\n", Err: "exit status 3"})
	r.settle()
}

// TestTimelineOfAnother: a third node's journal shows what the new holder's shows, by its
// own clock, but without what actions printed.
func TestTimelineOfAnother(t *testing.T) {
	r := newRecording(t)
	takesOver(r, 8)
	if n := len(r.a.timelines.over); n != 0 {
		t.Fatalf("%d timelines of a takeover that goes on", n)
	}
	r.mark(vip1, 8, "sip answered", r.now)
	r.complete(vip1, 8, "done")
	r.settle()
	if n := len(r.a.timelines.over); n != 1 {
		t.Fatalf("%d timelines of a takeover that is over", n)
	}
	o := <-r.a.timelines.over
	if o.zero != r.at(-10*time.Millisecond) || o.Noticed.Duration() != time.Second {
		t.Errorf("it counts from %d, %v after its first mark", o.zero, o.Noticed.Duration())
	}
	o.Ago = 3e6

	third := newRecording(t)
	third.sees("pbx3", 8)
	third.a.timelines.hear(hearsay{"pbx3", o.Timeline})
	got := third.last()
	if ago := time.Since(got.Time.Time); ago < 3*time.Second || ago > time.Minute {
		t.Errorf("it was %v ago, want 3 s", ago)
	}
	want := r.last()
	want.ID, want.Time, want.Told = got.ID, got.Time, true
	want.Timeline = slices.Clone(want.Timeline)
	for i := range want.Timeline {
		if m := &want.Timeline[i]; m.Mark == "exec /y" {
			m.Output, m.Err = "", "sipalive events at pbx3 says why"
		}
	}
	if diff := cmp.Diff(lines(t, want), lines(t, got)); diff != "" {
		t.Errorf("-at the new holder +told:\n%s", diff)
	}

	r.routerProven(vip1, arp.Proof{At: time.Duration(r.now)})
	r.settle()
	again := <-r.a.timelines.over
	third.a.timelines.hear(hearsay{"pbx3", again.Timeline})
	e := third.last()
	if last := e.Timeline[len(e.Timeline)-1]; last.Mark != "router proven" || !e.Time.Equal(got.Time.Time) {
		t.Errorf("with the router's proof it is %+v", e)
	}
	if n := third.takeovers(); n != 1 {
		t.Errorf("%d events for one takeover", n)
	}
}

// TestTakeoverKeepsItsLease: an event keeps the lease that the new holder had when it
// took over, at the new holder and at the other nodes, whatever file is in force there or
// later.
func TestTakeoverKeepsItsLease(t *testing.T) {
	r, third := newRecording(t), newRecording(t)
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 8, Vacant: r.now, Lease: 3 * time.Second}})
	third.transitions([]elect.Transition{{Kind: elect.HolderSeen, VIP: vip1, Node: "pbx3", Epoch: 8, Lease: 3 * time.Second}})
	r.complete(vip1, 8, "done")
	r.settle()
	third.settle()
	third.a.timelines.hear(hearsay{"pbx3", (<-r.a.timelines.over).Timeline})
	for i, of := range []*recording{r, third} {
		if e := of.last(); e.Kind != control.Takeover || time.Duration(e.Lease) != 3*time.Second {
			t.Errorf("recording %d: a lease of %v in %+v, want 3 s", i, e.Lease, e)
		}
	}
	third.sees("pbx1", 9) // this node has not said how long its lease is
	third.a.timelines.hear(hearsay{"pbx1", elect.Timeline{VIP: vip1, Epoch: 9, Outcome: "done", Marks: []elect.Mark{{Kind: elect.MarkNoticed}, {Kind: elect.MarkLease}}}})
	if e := third.last(); e.Epoch != 9 || strings.Contains(lines(t, e), "lease_ms") {
		t.Errorf("a lease that nobody told is in %s", lines(t, e))
	}
}

// sees makes a recording see another node hold vip1.
func (r *recording) sees(node elect.Node, e elect.Epoch) {
	r.transitions([]elect.Transition{{Kind: elect.HolderSeen, VIP: vip1, Node: node, Epoch: e}})
	r.settle()
}

func (r *recording) takeovers() (n int) {
	for _, e := range r.a.Journal.Last(1000) {
		if e.Kind == control.Takeover {
			n++
		}
	}
	return n
}

func lines(t *testing.T, e control.Event) string {
	t.Helper()
	b, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTimelineIsTaken: a timeline is taken if it belongs to a tenure that was seen here,
// once per tenure, from the tenure's holder, with marks that can be true. Everything else
// is counted and costs no more.
func TestTimelineIsTaken(t *testing.T) {
	of := func(vip elect.VIPID, e elect.Epoch, kinds ...elect.MarkKind) elect.Timeline {
		m := elect.Timeline{VIP: vip, Epoch: e, Cause: elect.CauseCrash, Outcome: "done"}
		for _, k := range append([]elect.MarkKind{elect.MarkNoticed, elect.MarkLease}, kinds...) {
			m.Marks = append(m.Marks, elect.Mark{Kind: k})
		}
		return m
	}
	with := func(m elect.Timeline, change func(*elect.Timeline)) elect.Timeline { change(&m); return m }
	bound, sip := elect.MarkBound, elect.MarkSIPAnswered
	for _, c := range []struct {
		name    string
		before  []hearsay
		h       hearsay
		marks   int // of the newest takeover; 0: there is none
		events  int
		refused uint64
	}{
		{"the first", nil, hearsay{"pbx2", of(vip1, 5, bound)}, 3, 1, 0},
		{"the same again", []hearsay{{"pbx2", of(vip1, 5, bound)}}, hearsay{"pbx2", of(vip1, 5, bound)}, 3, 1, 0},
		{"more of it", []hearsay{{"pbx2", of(vip1, 5, bound)}}, hearsay{"pbx2", of(vip1, 5, bound, sip)}, 4, 1, 0},
		{"less of it, overtaken", []hearsay{{"pbx2", of(vip1, 5, bound, sip)}}, hearsay{"pbx2", of(vip1, 5, bound)}, 4, 1, 0},
		{"the first copy was lost", nil, hearsay{"pbx2", of(vip1, 5, bound, sip)}, 4, 1, 0},
		{"the next tenure", []hearsay{{"pbx2", of(vip1, 5, bound)}}, hearsay{"pbx1", of(vip1, 7)}, 2, 2, 0},
		{"an older tenure, late", []hearsay{{"pbx1", of(vip1, 7)}}, hearsay{"pbx2", of(vip1, 5, bound)}, 3, 2, 0},
		{"the epoch was raised before it was seen", nil, hearsay{"pbx1", of(vip1, 6)}, 2, 1, 0},
		{"a second takeover of one tenure", []hearsay{{"pbx1", of(vip1, 6)}}, hearsay{"pbx1", of(vip1, 7)}, 2, 1, 1},
		{"a tenure before the last", nil, hearsay{"pbx1", of(vip1, 5)}, 0, 0, 1},
		{"an epoch that nobody saw", nil, hearsay{"pbx1", of(vip1, 8)}, 0, 0, 1},
		{"an epoch beyond all", nil, hearsay{"pbx1", of(vip1, 1<<64-1)}, 0, 0, 1},
		{"no epoch", nil, hearsay{"pbx2", of(vip1, 0)}, 0, 0, 1},
		{"another node's takeover", nil, hearsay{"pbx2", of(vip1, 7)}, 0, 0, 1},
		{"who never held it", nil, hearsay{"pbx3", of(vip1, 5)}, 0, 0, 1},
		{"an unknown VIP", nil, hearsay{"pbx2", of("192.0.2.99", 5)}, 0, 0, 1},
		{"a role nobody was seen to hold", nil, hearsay{"pbx2", of(elect.RoleID("cdr"), 5)}, 0, 0, 1},
		{"a mark twice", nil, hearsay{"pbx2", of(vip1, 5, bound, bound)}, 0, 0, 1},
		{"never noticed", nil, hearsay{"pbx2", with(of(vip1, 5), func(m *elect.Timeline) { m.Marks = m.Marks[1:] })}, 0, 0, 1},
		{"never leased", nil, hearsay{"pbx2", with(of(vip1, 5), func(m *elect.Timeline) { m.Marks = m.Marks[:1] })}, 0, 0, 1},
		{"more actions than there can be", nil, hearsay{"pbx2", with(of(vip1, 5), func(m *elect.Timeline) { m.Left = maxLeft + 1 })}, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRecording(t)
			r.sees("pbx2", 5)
			r.sees("pbx1", 7)
			r.sees("pbx1", 7) // a claim that was lost for a while: the same tenure
			for _, h := range c.before {
				r.a.timelines.hear(h)
			}
			if n := r.a.timelines.refused.Load(); n != 0 {
				t.Fatalf("%d refused before", n)
			}
			r.a.timelines.hear(c.h)
			if got := r.a.timelines.refused.Load(); got != c.refused {
				t.Errorf("%d refused, want %d", got, c.refused)
			}
			if got := r.takeovers(); got != c.events {
				t.Fatalf("%d takeovers, want %d", got, c.events)
			}
			if c.events > 0 {
				if e := r.last(); len(e.Timeline) != c.marks || !e.Told || e.Kind != control.Takeover {
					t.Errorf("it is %+v, want %d marks", e, c.marks)
				}
			}
		})
	}
}

// TestTimelineOfOwnVIP: no other node can tell a takeover of a VIP that is held here.
func TestTimelineOfOwnVIP(t *testing.T) {
	r := newRecording(t)
	takesOver(r, 8)
	r.a.timelines.hear(hearsay{"pbx1", elect.Timeline{VIP: vip1, Epoch: 8, Outcome: "done", Marks: []elect.Mark{{Kind: elect.MarkNoticed}, {Kind: elect.MarkLease}}}})
	if n := r.takeovers(); n != 1 || r.a.timelines.refused.Load() != 1 {
		t.Errorf("%d takeovers, %d refused", n, r.a.timelines.refused.Load())
	}
}

// TestTimelinesFlood: a peer that tells without end fills neither journal nor memory, and
// nothing waits for it.
func TestTimelinesFlood(t *testing.T) {
	r := newRecording(t)
	r.sees("pbx2", 5)
	before := len(r.a.Journal.Last(1000))
	for i := range 20000 {
		m := elect.Timeline{VIP: vip1, Epoch: elect.Epoch(i), Outcome: "done", Marks: []elect.Mark{{Kind: elect.MarkNoticed}, {Kind: elect.MarkLease}}, Left: uint16(i)}
		r.a.timelines.hear(hearsay{"pbx2", m})
		r.a.timelines.hear(hearsay{"pbx1", m})
	}
	if n := len(r.a.Journal.Last(1000)) - before; n != 1 {
		t.Errorf("%d events of a flood, want the one that may be", n)
	}
	refused := r.a.timelines.refused.Load()
	for range cap(r.a.timelines.heard) + 3 { // with nobody to hear them
		r.a.timelines.take("pbx2", elect.Timeline{VIP: vip1})
	}
	if n := r.a.timelines.refused.Load() - refused; n != 3 {
		t.Errorf("%d refused by a full queue, want 3", n)
	}
	for e := range elect.Epoch(1000) {
		r.sees(elect.Node([]string{"pbx1", "pbx2"}[e%2]), 10+e)
	}
	if n := len(r.a.timelines.seen[vip1]); n != maxTenures {
		t.Errorf("%d tenures are remembered, want %d", n, maxTenures)
	}
}

// TestTimelineOfManyActions: failed actions come first in the choice, and the number of
// the omitted ones is told. Texts are cut and cleaned.
func TestTimelineOfManyActions(t *testing.T) {
	r := newRecording(t)
	takesOver(r, 8)
	name := "exec /usr/local/" + strings.Repeat("ü", 40) + "\n\xff"
	for i := range 20 {
		r.action(vip1, hooks.Acquire, 8, hooks.Outcome{Action: name, Started: int64(r.now), OK: i != 19, Err: map[bool]string{true: "exit status 1"}[i == 19]})
	}
	r.complete(vip1, 8, "vip1 does not answer SIP: "+strings.Repeat("x", 500))
	r.settle()
	o := <-r.a.timelines.over
	failed := 0
	for _, k := range o.Actions {
		if !k.OK {
			failed++
		}
		if len(k.Action) > maxBrief || strings.Contains(string(k.Action), "\n") || !utf8.ValidString(string(k.Action)) {
			t.Errorf("action %q", k.Action)
		}
	}
	if len(o.Actions) != elect.MaxActionMarks || o.Left != 22-elect.MaxActionMarks || failed != 2 || len(o.Outcome) > maxBrief {
		t.Errorf("%d actions, %d failed, %d left; outcome %q", len(o.Actions), failed, o.Left, o.Outcome)
	}
	third := newRecording(t)
	third.sees("pbx3", 8)
	third.a.timelines.hear(hearsay{"pbx3", o.Timeline})
	if e := third.last(); e.Text != "spare, 14 more actions" {
		t.Errorf("told as %+v", e)
	}
}

// TestTimelineTooLong: a takeover that took longer than a timeline can express is not
// told.
func TestTimelineTooLong(t *testing.T) {
	r := newRecording(t)
	takesOver(r, 8)
	r.mark(vip1, 8, "sip answered", r.at(2*time.Hour))
	r.complete(vip1, 8, "done")
	r.settle()
	if n := len(r.a.timelines.over); n != 0 {
		t.Errorf("%d timelines", n)
	}
}

// TestTimelineIsToldAFewTimes: a timeline is told a few times after its last change, each
// time with how long ago the takeover was by then. A takeover that was let go is told
// too.
func TestTimelineIsToldAFewTimes(t *testing.T) {
	r := newRecording(t) // outside the bubble: its alarms wait for the kernel
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r.a.timelines = newTimelines(r.a)
		r.a.Now = func() elect.Instant { return r.now.Add(time.Since(start)) }
		r.a.events, r.a.ended = make(chan elect.Event), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.a.timelines.run(ctx) })
		takesOver(r, 8)
		r.complete(vip1, 8, "done")
		r.settle()
		time.Sleep(100 * time.Millisecond)
		r.mark(vip1, 8, "sip answered", r.now)
		r.settle()
		for i, after := range []time.Duration{300 * time.Millisecond, 1300 * time.Millisecond, 5300 * time.Millisecond} {
			m := (<-r.a.events).(elect.Tell).Timeline
			at := time.Since(start)
			if late := at - after; late < 0 || late > 50*time.Millisecond {
				t.Errorf("told after %v, want %v", at, after)
			}
			if ago := m.Ago.Duration() - at; ago != 10*time.Millisecond || m.Epoch != 8 || len(m.Marks) != 6 {
				t.Errorf("time %d: %+v", i, m)
			}
		}
		r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 12, Vacant: r.now}})
		r.transitions([]elect.Transition{{Kind: elect.LetGo, VIP: vip1, Node: "pbx3", Epoch: 12, Successor: "pbx1", Cause: elect.CauseMove}})
		r.settle()
		if m := (<-r.a.events).(elect.Tell).Timeline; m.Epoch != 12 || m.Outcome != "let go before it was complete" {
			t.Errorf("%+v", m)
		}
		cancel()
		close(r.a.ended)
		wg.Wait()
		if n := r.a.timelines.told.Load(); n != 4 {
			t.Errorf("%d told, want 4", n)
		}
	})
}
