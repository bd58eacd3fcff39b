package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/hooks"
	"sipalive/platform"
)

const home = `

cluster = "pbx-dc1"
key_file = "/etc/sipalive/key"
[[node]]
name = "pbx1"
address = "192.0.2.11"
[[node]]
name = "pbx2"
address = "192.0.2.12"
[[node]]
name = "pbx3"
address = "192.0.2.13"
[[vip]]
name = "vip1"
address = "192.0.2.101"
interface = "eth0"
prefer = ["pbx1"]
[[role]]
name = "cdr"
`

const vip1 = elect.VIPID("192.0.2.101")

// recording is a recorder on its own. Its facts run when the test says so.
type recording struct {
	*recorder
	log *bytes.Buffer
	now elect.Instant
}

func newRecording(t *testing.T) *recording {
	t.Helper()
	c, err := config.Parse("home.toml", []byte(home))
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{log: &bytes.Buffer{}, now: 1e12}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	a := &Agent{Parts: Parts{Config: c, Self: c.Node("pbx3"), Journal: control.NewJournal(100), Log: log,
		Now: func() elect.Instant { return r.now }, Alarms: openAlarms(t)}}
	a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
	r.recorder = newRecorder(a)
	a.recorder, a.timelines = r.recorder, newTimelines(a)
	return r
}

func openAlarms(t *testing.T) *platform.Alarms {
	t.Helper()
	alarms, err := platform.OpenAlarms()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = alarms.Close() })
	return alarms
}

func (r *recording) settle() {
	for len(r.facts) > 0 {
		(<-r.facts)()
	}
}

func (r *recording) last() control.Event { return r.a.Journal.Last(1)[0] }

func (r *recording) at(d time.Duration) elect.Instant { return r.now.Add(d) }

// TestTakeoverTimeline: a takeover is one event, which is filled in as the takeover goes
// on. Its times count in milliseconds since the need was noticed.
func TestTakeoverTimeline(t *testing.T) {
	r := newRecording(t)
	ms := time.Millisecond
	r.action(vip1, hooks.Prepare, 8, hooks.Outcome{Action: "exec /ready", Started: int64(r.at(-3 * ms)), Took: ms, OK: true})
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 8, Previous: "pbx1", Cause: elect.CauseSIP,
		Why: elect.WhySpare, Noticed: r.at(-5 * ms), Vacant: r.at(-ms)}})
	r.bound(vip1, 8, r.at(ms), r.at(2*ms), true)
	r.action(vip1, hooks.Acquire, 8, hooks.Outcome{Action: "memcached 127.0.0.1:11211", Started: int64(r.at(3 * ms)), Took: ms, Err: "refused"})
	r.mark(vip1, 8, "sip answered", r.at(6*ms))
	r.complete(vip1, 8, "done")
	r.settle()
	ev := r.last()
	var got []string
	for _, m := range ev.Timeline {
		got = append(got, m.Mark+" "+m.At.String())
	}
	want := "noticed 0.0 ms, exec /ready 2.0 ms, lease 5.0 ms, bound 6.0 ms, announced 7.0 ms, memcached 127.0.0.1:11211 8.0 ms, sip answered 11.0 ms"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("timeline\n%s, want\n%s", s, want)
	}
	if ev.Kind != control.Takeover || ev.From != "pbx1" || ev.To != "pbx3" || ev.Epoch != 8 || ev.Reason != "sip" || ev.Outcome != "done" {
		t.Errorf("event %+v", ev)
	}
	if n := len(r.a.Journal.Last(100)); n != 1 {
		t.Errorf("%d events for one takeover", n)
	}
	const line = `level=INFO msg=acquired node=pbx3 vip=vip1 from=pbx1 to=pbx3 reason=sip epoch=8`
	if !strings.HasPrefix(r.log.String(), line+"\n") {
		t.Errorf("log:\n%swant:\n%s", r.log, line)
	}
	if !strings.Contains(r.log.String(), `msg="memcached 127.0.0.1:11211" node=pbx3 vip=vip1 epoch=8 reason=acquire err=refused`) {
		t.Errorf("a failed action is not in the log:\n%s", r.log)
	}
}

// TestPreparedInVain: the prepare actions of a move that came to nothing are not part of
// a later takeover.
func TestPreparedInVain(t *testing.T) {
	r := newRecording(t)
	for range 3 * maxReady {
		r.action(vip1, hooks.Prepare, 8, hooks.Outcome{Action: "exec /ready", Started: int64(r.at(-time.Hour)), OK: true})
	}
	r.settle()
	if n := len(r.ready[vip1]); n != maxReady {
		t.Errorf("%d prepare actions kept, want %d", n, maxReady)
	}
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 8, Cause: elect.CauseSIP, Noticed: r.at(-time.Second)}})
	r.settle()
	if tl := r.last().Timeline; len(tl) != 2 {
		t.Errorf("timeline %+v", tl)
	}
}

// TestCrashTimeline: a crash is noticed when the lease ends. The last sign of life is
// shown before that.
func TestCrashTimeline(t *testing.T) {
	r := newRecording(t)
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 2, Previous: "pbx1", Cause: elect.CauseCrash,
		Noticed: r.at(-1002 * time.Millisecond), Vacant: r.at(-2 * time.Millisecond)}})
	r.settle()
	tl := r.last().Timeline
	if len(tl) != 3 || tl[0].Mark != "last heard" || time.Duration(tl[0].At) != -time.Second || tl[1].Mark != "noticed" || tl[1].At != 0 ||
		time.Duration(tl[2].At) != 2*time.Millisecond {
		t.Errorf("timeline %+v", tl)
	}
}

// TestSupersededTakeover: the event of a takeover that was let go before it was complete
// says so. A late end of its chain changes nothing.
func TestSupersededTakeover(t *testing.T) {
	r := newRecording(t)
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 2, Cause: elect.CauseBoot, Vacant: r.now}})
	r.transitions([]elect.Transition{{Kind: elect.LetGo, VIP: vip1, Node: "pbx3", Epoch: 2, Successor: "pbx1", Cause: elect.CauseMove}})
	r.complete(vip1, 2, "done")
	r.action(vip1, hooks.Release, 2, hooks.Outcome{Action: "exec /released", Started: int64(r.at(time.Millisecond)), OK: true, Output: "bye\n"})
	r.settle()
	events := r.a.Journal.Last(2)
	if events[0].Outcome != "let go before it was complete" {
		t.Errorf("outcome %q", events[0].Outcome)
	}
	release := events[1]
	if release.Kind != control.KindRelease || release.To != "pbx1" || len(release.Timeline) != 1 || release.Timeline[0].Output != "bye\n" {
		t.Errorf("release %+v", release)
	}
}

// TestEveryTransitionHasWords: every kind of transition becomes one line in log and
// journal, with no empty part in it.
func TestEveryTransitionHasWords(t *testing.T) {
	for k := elect.Acquired; k.String() != ""; k++ {
		r := newRecording(t)
		r.transitions([]elect.Transition{{Kind: k, VIP: vip1, Node: "pbx1", Successor: "pbx2", Epoch: 3, Text: "because"}})
		r.settle()
		if k == elect.RetireDue {
			continue
		}
		events := r.a.Journal.Last(1)
		if len(events) != 1 || events[0].Kind == "" || events[0].Text == "" && k != elect.Acquired || strings.Contains(events[0].Text, "  ") {
			t.Errorf("%s: %+v", k, events)
		}
		if n := strings.Count(r.log.String(), "\n"); n != 1 {
			t.Errorf("%s: %d lines in the log", k, n)
		}
		if k > 64 {
			t.Fatal("no end of kinds")
		}
		if k.String() == (k + 1).String() {
			break // the last kind's words also stand for all values above it
		}
	}
}

// TestNotesAreSaid: an action that succeeded but left something running has a note in the
// log. An action that was skipped is no trouble.
func TestNotesAreSaid(t *testing.T) {
	r := newRecording(t)
	r.action(vip1, hooks.Acquire, 8, hooks.Outcome{Action: "exec /a", OK: true, Note: "processes it left running were killed"})
	r.action(vip1, hooks.Retire, 8, hooks.Outcome{Action: "exec /b", Skipped: true, Err: "skipped: epoch 8 is over"})
	r.settle()
	for _, want := range []string{`level=WARN msg="exec /a" `, `err="processes it left running were killed"`, `level=INFO msg="exec /b" `} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, r.log)
		}
	}
}

// TestSlowLogCostsLines: a log that takes nothing never delays the loop.
func TestSlowLogCostsLines(t *testing.T) {
	r := newRecording(t)
	for range cap(r.facts) + 10 {
		r.warn("x", os.ErrPermission)
	}
	if lost := r.a.stats.recordsLost.Load(); lost != 10 {
		t.Errorf("%d records lost, want 10", lost)
	}
	r.settle()
	if n := strings.Count(r.log.String(), "msg=x"); n != 1 {
		t.Errorf("the same warning %d times, want once a minute", n)
	}
}

// TestRuntimeDirectoryRefuses: nothing is sent that could depend on a record which was
// not stored, and the machine is told before it hears anything else.
func TestRuntimeDirectoryRefuses(t *testing.T) {
	r := newRecording(t)
	base := t.TempDir()
	r.a.Directory = openDirectory(t, base)
	if err := os.Mkdir(filepath.Join(base, "run", runtimeName+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r.a.storeRuntime(aRuntime()) || !r.a.unstored {
		t.Error("a record that was refused counts as stored")
	}
	if r.a.storeRuntime(nil) {
		t.Error("effects after a refused record may be sent")
	}
	if err := os.Remove(filepath.Join(base, "run", runtimeName+".new")); err != nil {
		t.Fatal(err)
	}
	if !r.a.storeRuntime(aRuntime()) || r.a.unstored || !r.a.storeRuntime(nil) {
		t.Error("a record that was taken does not count")
	}
}

// TestWarningsKeepApart: a warning about one device hides none about another.
func TestWarningsKeepApart(t *testing.T) {
	r := newRecording(t)
	for range 3 {
		for _, dev := range []string{"eth0", "eth1"} {
			r.warn("fence vip1", &config.Error{File: dev, Text: "operation not permitted"})
		}
	}
	r.settle()
	if got := strings.Count(r.log.String(), "level=WARN"); got != 2 || !strings.Contains(r.log.String(), "eth1") {
		t.Errorf("%d warnings, want one per device:\n%s", got, r.log)
	}
	for i := range 2 * maxWarned {
		r.warn("x", &config.Error{File: "x", Line: i + 1, Text: "y"})
		r.settle()
	}
	if len(r.warned) > maxWarned {
		t.Errorf("%d warnings remembered", len(r.warned))
	}
}

// TestRetriesAreToldOnce: a move that fails again and again for the same reason is told
// once. An operator's move is told each time.
func TestRetriesAreToldOnce(t *testing.T) {
	r := newRecording(t)
	for range 5 {
		for _, c := range []elect.Cause{elect.CauseSIP, elect.CauseCheck, elect.CauseMove} {
			r.transitions([]elect.Transition{
				{Kind: elect.MoveStarted, VIP: vip1, Node: "pbx3", Successor: "pbx1", Epoch: 4, Cause: c},
				{Kind: elect.MoveFailed, VIP: vip1, Node: "pbx3", Epoch: 4, Cause: c, Text: "pbx1 refused for " + c.String()}})
		}
	}
	r.settle()
	for _, reason := range []string{"reason=sip", "reason=check"} {
		if got := strings.Count(r.log.String(), reason); got != 2 {
			t.Errorf("%s: %d lines of one failing move, want its start and its end:\n%s", reason, got, r.log)
		}
	}
	if got := strings.Count(r.log.String(), "reason=move"); got != 10 {
		t.Errorf("%d lines of an operator's five moves, want 10", got)
	}
}

// TestNothingFromItself: after a restart, a VIP that is where it was has no "from", nor
// has the event of a fit node.
func TestNothingFromItself(t *testing.T) {
	r := newRecording(t)
	r.transitions([]elect.Transition{{Kind: elect.HolderSeen, VIP: vip1, Node: "pbx1", Previous: "pbx1", Epoch: 3},
		{Kind: elect.NodeFit, Node: "pbx3"}, {Kind: elect.HolderSeen, VIP: vip1, Node: "pbx2", Previous: "pbx1", Epoch: 4}})
	r.settle()
	want := "level=INFO msg=\"holder seen\" node=pbx3 vip=vip1 to=pbx1 epoch=3\nlevel=INFO msg=\"node fit\" node=pbx3\n" +
		"level=INFO msg=\"holder seen\" node=pbx3 vip=vip1 from=pbx1 to=pbx2 epoch=4\n"
	if r.log.String() != want {
		t.Errorf("log:\n%swant:\n%s", r.log, want)
	}
}
