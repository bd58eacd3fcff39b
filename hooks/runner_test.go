package hooks

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sh(script string) Action {
	return Action{On: Acquire, Exec: []string{"/bin/sh", "-c", script}, Timeout: patience}
}

func on(p Phase, a Action) Action { a.On = p; return a }

// gate is an action that runs until it is opened and shows when it has begun.
type gate struct{ begun, open string }

func newGate(t *testing.T) gate {
	dir := t.TempDir()
	g := gate{begun: filepath.Join(dir, "begun"), open: filepath.Join(dir, "open")}
	if err := os.WriteFile(g.open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g gate) action() Action {
	return sh(fmt.Sprintf("touch %s; while [ -e %s ]; do sleep 0.01; done", g.begun, g.open))
}

func (g gate) waitBegun(t *testing.T) {
	t.Helper()
	eventually(t, "action begins", func() bool { return exists(g.begun) })
}

func (g gate) pass(t *testing.T) {
	t.Helper()
	if err := os.Remove(g.open); err != nil {
		t.Fatal(err)
	}
}

func TestChainRunsInOrderAndOnlyItsPhase(t *testing.T) {
	r := newTestRunner(t, Options{})
	log := filepath.Join(t.TempDir(), "log")
	say := func(word string) Action { return sh("echo " + word + " >> " + log) }
	j := newJournal()
	r.Start("vip1", Acquire, 7, Event{}, []Action{
		say("one"), on(Release, say("not this")), {On: Acquire, Exec: []string{"/bin/false"}}, say("two"),
	}, j.report, j.done)
	var got []string
	for _, o := range j.wait(t) {
		got = append(got, fmt.Sprintf("%s ok=%v %s epoch=%d", o.Action, o.OK, o.Err, o.Epoch))
	}
	want := []string{
		"exec /bin/sh ok=true  epoch=7",
		"exec /bin/false ok=false exec /bin/false: exit status 1 epoch=7",
		"exec /bin/sh ok=true  epoch=7",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
	if j.ok {
		t.Error("done(true) although an action failed")
	}
	if text, _ := os.ReadFile(log); string(text) != "one\ntwo\n" {
		t.Errorf("ran %q", text)
	}
}

func TestEmptyChainIsDone(t *testing.T) {
	r := newTestRunner(t, Options{})
	j := newJournal()
	r.Start("vip1", Acquire, 7, Event{}, nil, j.report, j.done)
	if out := j.wait(t); len(out) != 0 || !j.ok {
		t.Errorf("outcomes %v, ok %v", out, j.ok)
	}
}

func TestEmptyChainOfAnOldEpochIsNotOK(t *testing.T) {
	r := newTestRunner(t, Options{})
	r.Newer("vip1", 8)
	j := newJournal()
	r.Start("vip1", Acquire, 7, Event{}, nil, j.report, j.done)
	if j.wait(t); j.ok {
		t.Error("done(true)")
	}
}

func TestInvalidActionIsReported(t *testing.T) {
	r := newTestRunner(t, Options{})
	j := newJournal()
	r.Start("vip1", Acquire, 7, Event{}, []Action{{On: "takeover", Exec: []string{"/bin/true"}}}, j.report, j.done)
	out := j.wait(t)
	if len(out) != 1 || out[0].OK || !strings.Contains(out[0].Err, `on = "takeover": not a phase`) {
		t.Errorf("outcomes %+v", out)
	}
}

func TestOutcomeTimes(t *testing.T) {
	var clock int64 = 41e9
	r := newTestRunner(t, Options{Now: func() int64 { clock += 1e9; return clock }})
	o := runOne(t, r, Action{Exec: []string{"/bin/true"}})
	if o.Started != 42e9 || o.Took != time.Second {
		t.Errorf("started %d, took %s", o.Started, o.Took)
	}
}

func TestHangingActionHoldsUpItsOwnVIPOnly(t *testing.T) {
	r := newTestRunner(t, Options{})
	g := newGate(t)
	first, second, other := newJournal(), newJournal(), newJournal()
	log := filepath.Join(t.TempDir(), "log")
	r.Start("vip1", Acquire, 1, Event{}, []Action{g.action(), sh("echo first >> " + log)}, first.report, first.done)
	g.waitBegun(t)
	r.Start("vip1", Retire, 1, Event{}, []Action{on(Retire, sh("echo second >> "+log))}, second.report, second.done)
	r.Start("vip2", Acquire, 1, Event{}, []Action{sh("echo other >> " + log)}, other.report, other.done)
	other.wait(t) // while vip1 hangs
	select {
	case <-second.ended:
		t.Fatal("two chains of one VIP at a time")
	default:
	}
	g.pass(t)
	first.wait(t)
	second.wait(t)
	// The retire stops actions of the same epoch's acquire chain that have not started.
	if text, _ := os.ReadFile(log); string(text) != "other\nsecond\n" {
		t.Errorf("ran %q", text)
	}
}

// TestCallbacksMayUseTheRunner: done may start the next chain, as the agent does.
func TestCallbacksMayUseTheRunner(t *testing.T) {
	r := newTestRunner(t, Options{})
	next := newJournal()
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh("true")},
		func(Outcome) { r.Newer("vip1", 1) },
		func(End) { r.Start("vip1", Retire, 1, Event{}, nil, next.report, next.done) })
	next.wait(t)
}

func TestCloseKillsAndSkips(t *testing.T) {
	r := NewRunner(Options{Now: testNow})
	g := newGate(t)
	running, waiting, late := newJournal(), newJournal(), newJournal()
	r.Start("vip1", Acquire, 1, Event{}, []Action{g.action(), sh("true")}, running.report, running.done)
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh("true")}, waiting.report, waiting.done)
	g.waitBegun(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	out := append(running.wait(t), waiting.wait(t)...)
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh("true")}, late.report, late.done)
	out = append(out, late.wait(t)...)
	var errs []string
	for _, o := range out {
		errs = append(errs, o.Err)
	}
	want := []string{
		"exec /bin/sh: the agent is ending, its process group was killed",
		"skipped: the agent is ending", "skipped: the agent is ending", "skipped: the agent is ending",
	}
	if d := cmp.Diff(want, errs); d != "" {
		t.Errorf("errors (-want +got):\n%s", d)
	}
	if err := r.Close(ctx); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	r := NewRunner(Options{Now: testNow})
	hold, j := make(chan struct{}), newJournal()
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh("true")}, func(Outcome) { <-hold }, j.done)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Close(ctx); err != context.Canceled {
		t.Errorf("Close: %v", err)
	}
	close(hold)
	j.wait(t)
}
