package hooks

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// TestEpochRules starts from what is known of a VIP and checks what may still start.
func TestEpochRules(t *testing.T) {
	took := func(p Phase, e uint64) func(*ledger) { return func(l *ledger) { l.start(p, e) } }
	newer := func(e uint64) func(*ledger) { return func(l *ledger) { l.newer(e) } }
	tests := []struct {
		name    string
		past    []func(*ledger)
		phase   Phase
		epoch   uint64
		refused string
	}{
		{"first acquire", nil, Acquire, 1, ""},
		{"its epoch is the newest", []func(*ledger){newer(5)}, Acquire, 5, ""},
		{"acquire of an old epoch", []func(*ledger){newer(6)}, Acquire, 5, "epoch 5 is over, epoch 6 is known"},
		{"prepare of an old epoch", []func(*ledger){newer(6)}, Prepare, 5, "epoch 5 is over, epoch 6 is known"},
		{"an old Newer changes nothing", []func(*ledger){newer(6), newer(4)}, Acquire, 5, "epoch 5 is over, epoch 6 is known"},
		{"acquire after prepare of the same epoch", []func(*ledger){took(Prepare, 6)}, Acquire, 6, ""},
		{"acquire superseded by this node's next", []func(*ledger){took(Acquire, 5), took(Acquire, 7)}, Acquire, 5, "epoch 5 is over, epoch 7 is known"},
		{"acquire of what was let go, nobody else has it", []func(*ledger){took(Acquire, 5), took(Release, 5)}, Acquire, 5, "epoch 5 was let go"},
		{"acquire after retire", []func(*ledger){took(Acquire, 5), took(Retire, 5)}, Acquire, 5, "epoch 5 was let go"},
		{"acquire again after letting go", []func(*ledger){took(Acquire, 5), took(Release, 5), newer(6)}, Acquire, 7, ""},

		{"release while the successor's epoch is known", []func(*ledger){took(Acquire, 5), newer(6)}, Release, 5, ""},
		{"retire while the successor's epoch is known", []func(*ledger){took(Acquire, 5), took(Release, 5), newer(6)}, Retire, 5, ""},
		{"release two takeovers later, all elsewhere", []func(*ledger){took(Acquire, 5), newer(9)}, Release, 5, ""},
		{"release of an epoch acquired before a restart", nil, Release, 5, ""},
		{"release after this node acquired again", []func(*ledger){took(Acquire, 5), newer(6), took(Acquire, 7)}, Release, 5, "epoch 5 is over, this node has taken epoch 7 since"},
		{"retire after this node prepares again", []func(*ledger){took(Acquire, 5), took(Release, 5), took(Prepare, 7)}, Retire, 5, "epoch 5 is over, this node has taken epoch 7 since"},
		{"release of the newer of two", []func(*ledger){took(Acquire, 5), took(Acquire, 7)}, Release, 7, ""},

		{"acquire after its epoch was raised", []func(*ledger){took(Acquire, 5), func(l *ledger) { l.raised(8) }}, Acquire, 8, ""},
		{"release of what was raised since", []func(*ledger){took(Acquire, 5), func(l *ledger) { l.raised(8) }}, Release, 5, "epoch 5 is over, this node has taken epoch 8 since"},
		{"release of the raised epoch", []func(*ledger){took(Acquire, 5), func(l *ledger) { l.raised(8) }, newer(9)}, Release, 8, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l ledger
			for _, step := range tt.past {
				step(&l)
			}
			l.start(tt.phase, tt.epoch)
			if got := l.refuses(tt.phase, tt.epoch); got != tt.refused {
				t.Errorf("refuses(%s, %d) = %q, want %q", tt.phase, tt.epoch, got, tt.refused)
			}
		})
	}
}

// epochCase runs an acquire chain of epoch 5. Its first action is held open while then is
// called. It returns the outcome of the second action.
func epochCase(t *testing.T, then func(r *Runner), before ...func(r *Runner)) Outcome {
	t.Helper()
	r := newTestRunner(t, Options{})
	for _, f := range before {
		f(r)
	}
	g, j := newGate(t), newJournal()
	r.Start("vip1", Acquire, 5, Event{Epoch: 1}, []Action{g.action(), sh("echo $SIPALIVE_EPOCH")}, j.report, j.done)
	g.waitBegun(t)
	then(r)
	g.pass(t)
	out := j.wait(t)
	if !out[0].OK {
		t.Errorf("the action that ran was not left alone: %+v", out[0])
	}
	if j.ok != out[1].OK {
		t.Errorf("done(%v) after %+v", j.ok, out[1])
	}
	return out[1]
}

func TestNewerStopsTheRestOfAChain(t *testing.T) {
	o := epochCase(t, func(r *Runner) { r.Newer("vip1", 6) })
	if !o.Skipped || o.OK || o.Err != "skipped: epoch 5 is over, epoch 6 is known" || o.Output != "" {
		t.Errorf("second action: %+v", o)
	}
}

func TestNewerOfAnotherVIPStopsNothing(t *testing.T) {
	o := epochCase(t, func(r *Runner) { r.Newer("vip2", 6); r.Newer("vip1", 5) })
	if !o.OK || o.Output != "5\n" {
		t.Errorf("second action: %+v", o)
	}
}

func TestRaisedChainGoesOnUnderTheNewEpoch(t *testing.T) {
	o := epochCase(t, func(r *Runner) { r.Raised("vip1", 5, 8); r.Raised("vip1", 5, 3) })
	if !o.OK || o.Output != "8\n" || o.Epoch != 8 {
		t.Errorf("second action: %+v", o)
	}
}

// TestEndOfALeaseStopsTheRestOfAChain: nobody has said that the epoch is over, but by the
// clock it is.
func TestEndOfALeaseStopsTheRestOfAChain(t *testing.T) {
	for _, over := range []string{"vip1", "vip2"} {
		var ended atomic.Bool
		o := epochCase(t, func(r *Runner) { ended.Store(true) }, func(r *Runner) {
			r.SetLease(func(vip string) bool { return vip != over || !ended.Load() })
		})
		if want := "skipped: the lease of epoch 5 is over"; over == "vip1" && (!o.Skipped || o.Err != want) {
			t.Errorf("second action: %+v, want %s", o, want)
		}
		if over != "vip1" && !o.OK {
			t.Errorf("the end of another lease stops it: %+v", o)
		}
	}
}

// TestEndOfALeaseStopsRepetitions: it stops the retries of acquire. It does not stop
// prepare, whose lease is still another node's, nor release, whose lease was let go.
func TestEndOfALeaseStopsRepetitions(t *testing.T) {
	for phase, want := range map[Phase]string{
		Acquire: "exec /bin/false: exit status 1; not tried again: the lease of epoch 5 is over",
		Prepare: "exec /bin/false: exit status 1 (tried 2 times)", Release: "exec /bin/false: exit status 1 (tried 2 times)",
	} {
		var asked atomic.Int32
		r, j := newTestRunner(t, Options{Backoff: func(int) time.Duration { return 0 }}), newJournal()
		r.SetLease(func(string) bool { return asked.Add(1) < 3 }) // asked for the chain, its action and the retry
		r.Start("vip1", phase, 5, Event{}, []Action{{On: phase, Exec: []string{"/bin/false"}, Retries: 1}}, j.report, j.done)
		if out := j.wait(t); out[0].Err != want {
			t.Errorf("%s: %+v, want %s", phase, out[0], want)
		}
	}
}

func TestReleaseStopsTheAcquireChainAndRuns(t *testing.T) {
	release := newJournal()
	o := epochCase(t, func(r *Runner) {
		r.Start("vip1", Release, 5, Event{}, []Action{on(Release, sh("echo $SIPALIVE_EVENT"))}, release.report, release.done)
		r.Newer("vip1", 6)
	})
	if !o.Skipped {
		t.Errorf("acquire went on after the release: %+v", o)
	}
	if out := release.wait(t); !out[0].OK || out[0].Output != "release\n" {
		t.Errorf("release: %+v", out)
	}
}

func TestAcquireAgainDropsTheWaitingRelease(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "released")
	release, again := newJournal(), newJournal()
	epochCase(t, func(r *Runner) {
		r.Start("vip1", Release, 5, Event{}, []Action{on(Release, sh("touch "+mark))}, release.report, release.done)
		r.Newer("vip1", 6)
		r.Start("vip1", Acquire, 7, Event{}, []Action{sh("true")}, again.report, again.done)
	})
	if out := release.wait(t); !out[0].Skipped || out[0].Err != "skipped: epoch 5 is over, this node has taken epoch 7 since" {
		t.Errorf("release: %+v", out)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the release action ran")
	}
	if again.wait(t); !again.ok {
		t.Errorf("acquire: %+v", again.outcomes)
	}
}
