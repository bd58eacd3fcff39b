package hooks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// counting returns an action that fails until its n-th try, and a function that returns
// how often it was tried.
func counting(t *testing.T, n int) (a Action, tries func() int) {
	file := filepath.Join(t.TempDir(), "tries")
	a = sh(fmt.Sprintf("echo >> %s; [ $(wc -l < %[1]s) -ge %d ]", file, n))
	return a, func() int {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")
	}
}

func TestRetriesUntilItSucceeds(t *testing.T) {
	var pauses []int
	r := newTestRunner(t, Options{Backoff: func(n int) time.Duration { pauses = append(pauses, n); return time.Millisecond }})
	a, tries := counting(t, 3)
	a.Retries = 5
	o := runOne(t, r, a)
	if !o.OK || o.Err != "" || o.Attempts != 3 || tries() != 3 {
		t.Errorf("outcome %+v after %d tries", o, tries())
	}
	if d := cmp.Diff([]int{1, 2}, pauses); d != "" {
		t.Errorf("pauses (-want +got):\n%s", d)
	}
}

func TestRetriesEnd(t *testing.T) {
	r := newTestRunner(t, Options{Backoff: func(int) time.Duration { return time.Millisecond }})
	a, tries := counting(t, 100)
	a.Retries = 2
	o := runOne(t, r, a)
	if o.OK || o.Err != "exec /bin/sh: exit status 1 (tried 3 times)" || tries() != 3 {
		t.Errorf("outcome %+v after %d tries", o, tries())
	}
}

func TestBackoff(t *testing.T) {
	var got []string
	for n := range 7 {
		got = append(got, Backoff(n+1).String())
	}
	if d := cmp.Diff([]string{"200ms", "400ms", "800ms", "1.6s", "3.2s", "5s", "5s"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	actions := []Action{{On: Acquire, Timeout: time.Second, Retries: 2}, {On: Release}, {On: Acquire}}
	if got, want := Longest(actions, Acquire), 3*time.Second+600*time.Millisecond+DefaultTimeout; got != want {
		t.Errorf("longest chain %s, want %s", got, want)
	}
}

// TestNoRepetitionOfAnOldEpoch: the epoch rule holds for every try. The pause before a
// forbidden try ends at once.
func TestNoRepetitionOfAnOldEpoch(t *testing.T) {
	paused := make(chan struct{}, 1)
	r := newTestRunner(t, Options{Backoff: func(int) time.Duration { paused <- struct{}{}; return time.Hour }})
	a, tries := counting(t, 100)
	a.Retries = 5
	j := newJournal()
	r.Start("vip1", Acquire, 5, Event{}, []Action{a}, j.report, j.done)
	<-paused
	r.Newer("vip1", 6)
	o := j.wait(t)[0]
	if want := "exec /bin/sh: exit status 1; not tried again: epoch 5 is over, epoch 6 is known"; o.Err != want || o.OK || tries() != 1 {
		t.Errorf("outcome %+v after %d tries, want %s", o, tries(), want)
	}
}

// TestPauseOutlivesWhatIsNoNews: a Newer with the chain's own epoch does not end the
// pause.
func TestPauseOutlivesWhatIsNoNews(t *testing.T) {
	first := make(chan struct{}, 1)
	r := newTestRunner(t, Options{Backoff: func(int) time.Duration { first <- struct{}{}; return 50 * time.Millisecond }})
	a, _ := counting(t, 2)
	a.Retries = 1
	j := newJournal()
	began := time.Now()
	r.Start("vip1", Acquire, 5, Event{}, []Action{a}, j.report, j.done)
	<-first
	r.Newer("vip1", 5)
	if o := j.wait(t)[0]; !o.OK || time.Since(began) < 50*time.Millisecond {
		t.Errorf("outcome %+v after %s", o, time.Since(began))
	}
}

func TestGiveBackEndsTheChain(t *testing.T) {
	r := newTestRunner(t, Options{})
	fails := Action{On: Acquire, Exec: []string{"/bin/false"}, GiveBack: true}
	j := newJournal()
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh("true"), fails, sh("true")}, j.report, j.done)
	out := j.wait(t)
	if want := "exec /bin/false: exit status 1"; j.end.GiveBack != want || j.end.OK {
		t.Errorf("end %+v, want %s", j.end, want)
	}
	if want := "skipped: the VIP is given back: exec /bin/false: exit status 1"; len(out) != 3 || !out[2].Skipped || out[2].Err != want {
		t.Errorf("outcomes %+v", out)
	}
}

func TestGiveBackIsForFailuresOnly(t *testing.T) {
	r := newTestRunner(t, Options{})
	r.Newer("vip1", 2)
	j := newJournal()
	r.Start("vip1", Acquire, 1, Event{}, []Action{{On: Acquire, Exec: []string{"/bin/false"}, GiveBack: true}}, j.report, j.done)
	if j.wait(t); j.end.GiveBack != "" || j.end.OK {
		t.Errorf("a skipped action gives the VIP back: %+v", j.end)
	}
}

func TestWhen(t *testing.T) {
	r := newTestRunner(t, Options{})
	log := filepath.Join(t.TempDir(), "log")
	say := func(word string, when ...Cause) Action {
		a := sh("echo " + word + " >> " + log)
		a.When = when
		return a
	}
	actions := []Action{say("always"), say("crash", Crash), say("planned", Move), say("either", SIP, Crash)}
	for i, c := range []Cause{Crash, Move, Boot} {
		j := newJournal()
		r.Start("vip1", Acquire, uint64(i+1), Event{Cause: c}, actions, j.report, j.done)
		j.wait(t)
	}
	text, _ := os.ReadFile(log)
	if want := "always\ncrash\neither\nalways\nplanned\nalways\n"; string(text) != want {
		t.Errorf("ran %q, want %q", text, want)
	}
}

// TestFailedRunsBesideBoth: a failed VIP may still be held or be gone, but not taken
// again.
func TestFailedRunsBesideBoth(t *testing.T) {
	var l ledger
	l.start(Acquire, 5)
	l.start(Failed, 5)
	if why := l.refuses(Acquire, 5); why != "" {
		t.Errorf("a failure that is held on to ends its acquire chain: %s", why)
	}
	l.start(Release, 5)
	l.newer(6)
	if why := l.refuses(Failed, 5); why != "" {
		t.Errorf("failed after the release: %s", why)
	}
	if why := l.refuses(Unreachable, 5); why == "" {
		t.Error("unreachable of what was let go may start")
	}
	l.start(Acquire, 7)
	if why := l.refuses(Failed, 5); why == "" {
		t.Error("failed after this node took the VIP again may start")
	}
}
