package hooks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// life is the life of one agent: a Runner on a journal that outlives it.
type life struct {
	*Runner
	broken error // error of the journal
}

func begin(t *testing.T, dir, boot string) *life {
	t.Helper()
	j, err := OpenJournal(dir, boot)
	if err != nil {
		t.Fatal(err)
	}
	l := &life{}
	l.Runner = newTestRunner(t, Options{Journal: j, JournalError: func(err error) { l.broken = errors.Join(l.broken, err) }})
	return l
}

// crash ends a life like SIGKILL: the journal stays as it is at that moment. The Runner
// itself has to end too, so the directory is copied first.
func (l *life) crash(t *testing.T, dir string) string {
	t.Helper()
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return left
}

var told = Event{VIP: "vip1", Address: "192.0.2.101", Node: "pbx2", Previous: "pbx1", Cause: Crash, Reason: "crash"}

// rerun starts what is owed and returns the phase, the epoch and what ran.
func (l *life) rerun(t *testing.T, held uint64, actions []Action, log string) []string {
	t.Helper()
	owed, _ := l.Resume("a", held)
	var ran []string
	for _, o := range owed {
		_ = os.Remove(log)
		j := newJournal()
		l.Start("a", o.Phase, o.Epoch, o.Event, actions, j.report, j.done)
		j.wait(t)
		text, _ := os.ReadFile(log)
		ran = append(ran, string(o.Phase)+" "+strings.Join(strings.Fields(string(text)), " "))
	}
	if l.broken != nil {
		t.Errorf("journal: %v", l.broken)
	}
	return ran
}

// TestCrashInTheMiddle: an agent dies while the second of three actions runs. It leaves
// the second and the third, whether the VIP is still held or not, and nothing runs twice.
func TestCrashInTheMiddle(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	say := func(word string) Action { return sh("echo " + word + " >> " + log) }
	for _, phase := range []Phase{Acquire, Release, Retire, Failed, Unreachable} {
		t.Run(string(phase), func(t *testing.T) {
			g := newGate(t)
			actions := []Action{on(phase, say("one")), on(phase, g.action()), on(phase, say("three"))}
			dir := t.TempDir()
			first := begin(t, dir, "boot1")
			j := newJournal()
			first.Start("a", phase, 7, told, actions, j.report, j.done)
			g.waitBegun(t)
			left := first.crash(t, dir)
			g.pass(t)
			held := uint64(0)
			if phase == Acquire || phase == Unreachable {
				held = 7
			}
			second := begin(t, left, "boot1")
			want := []string{string(phase) + " three"} // after the second, whose gate is open
			switch phase {
			case Unreachable: // in a life that never acquired: the journal owes the acquire chain as well
				want = []string{"acquire ", "unreachable three"}
			case Release: // of a VIP that was taken before this journal began
				want = nil
			}
			if d := cmp.Diff(want, second.rerun(t, held, actions, log)); d != "" {
				t.Errorf("run again (-want +got):\n%s", d)
			}
			third := begin(t, second.crash(t, left), "boot1")
			if d := cmp.Diff([]string(nil), third.rerun(t, held, actions, log)); d != "" {
				t.Errorf("run a third time (-want +got):\n%s", d)
			}
		})
	}
}

// acquired runs a whole acquire chain of epoch 7 in its own life.
func acquired(t *testing.T, actions []Action) (left string) {
	t.Helper()
	dir := t.TempDir()
	first := begin(t, dir, "boot1")
	j := newJournal()
	first.Start("a", Acquire, 7, told, actions, j.report, j.done)
	j.wait(t)
	return first.crash(t, dir)
}

func TestWhatACrashLeaves(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	say := func(p Phase) Action { return on(p, sh("echo $SIPALIVE_EVENT $SIPALIVE_EPOCH >> "+log)) }
	actions := []Action{say(Acquire), say(Release), say(Retire)}
	t.Run("held on", func(t *testing.T) {
		l := begin(t, acquired(t, actions), "boot1")
		if ran := l.rerun(t, 7, actions, log); ran != nil {
			t.Errorf("ran %q", ran)
		}
	})
	t.Run("lost", func(t *testing.T) {
		l := begin(t, acquired(t, actions), "boot1")
		if d := cmp.Diff([]string{"release release 7"}, l.rerun(t, 0, actions, log)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if owed, _ := l.Resume("a", 0); owed != nil {
			t.Errorf("owed after the release: %+v", owed)
		}
	})
	t.Run("lost, and why", func(t *testing.T) {
		first := begin(t, t.TempDir(), "boot1")
		j := newJournal()
		dir := first.opts.Journal.dir
		moved := told
		moved.Cause, moved.Reason = Move, "drain"
		first.Start("a", Acquire, 7, moved, nil, j.report, j.done)
		j.wait(t)
		l := begin(t, first.crash(t, dir), "boot1")
		why := func(when Cause) Action {
			a := on(Release, sh("echo $SIPALIVE_REASON when "+string(when)+" >> "+log))
			a.When = []Cause{when}
			return a
		}
		if d := cmp.Diff([]string{"release crash when crash"}, l.rerun(t, 0, []Action{why(Move), why(Crash), why(SIP), why(Boot)}, log)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
	t.Run("lost while it was released", func(t *testing.T) { // the release has its own reason
		first := begin(t, t.TempDir(), "boot1")
		dir, j := first.opts.Journal.dir, newJournal()
		first.Start("a", Acquire, 7, told, nil, j.report, j.done)
		j.wait(t)
		g, j := newGate(t), newJournal()
		last := on(Release, sh("echo $SIPALIVE_REASON >> "+log))
		last.When = []Cause{SIP}
		chain := []Action{on(Release, g.action()), last}
		sick := told
		sick.Cause, sick.Reason = SIP, "check"
		first.Start("a", Release, 7, sick, chain, j.report, j.done)
		g.waitBegun(t)
		left := first.crash(t, dir)
		g.pass(t)
		if d := cmp.Diff([]string{"release check"}, begin(t, left, "boot1").rerun(t, 0, chain, log)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
	t.Run("another boot", func(t *testing.T) {
		l := begin(t, acquired(t, actions), "boot2")
		if ran := l.rerun(t, 0, actions, log); ran != nil {
			t.Errorf("ran %q", ran)
		}
	})
	t.Run("before the first record", func(t *testing.T) {
		l := begin(t, acquired(t, actions), "boot1")
		owed, before := l.Resume("a", 9)
		if len(owed) != 1 || owed[0].Phase != Acquire || owed[0].Epoch != 9 || owed[0].Event != (Event{}) || before != nil {
			t.Errorf("owed %+v, before %v", owed, before)
		}
	})
	t.Run("no journal before", func(t *testing.T) {
		l := begin(t, t.TempDir(), "boot1")
		if owed, before := l.Resume("a", 9); owed != nil || before != nil {
			t.Errorf("owed %+v, before %v", owed, before)
		}
	})
	t.Run("what it was told", func(t *testing.T) {
		l := begin(t, acquired(t, actions), "boot1")
		if _, before := l.Resume("a", 7); before == nil || *before != told {
			t.Errorf("before %+v", before)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		dir := acquired(t, actions)
		if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(`{"boot":"boot1","vip":"b"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		l := begin(t, dir, "boot1")
		if ran := l.rerun(t, 0, actions, log); ran != nil {
			t.Errorf("ran %q", ran)
		}
	})
}

// TestRaisedIsNoTakeover: raising an epoch in place does not run the acquire actions
// again.
func TestRaisedIsNoTakeover(t *testing.T) {
	dir := acquired(t, []Action{sh("true")})
	l := begin(t, dir, "boot1")
	if owed, _ := l.Resume("a", 7); owed != nil {
		t.Fatalf("owed %+v", owed)
	}
	l.Raised("a", 7, 9)
	l.crash(t, dir) // dir also has what was written in the background
	if owed, _ := begin(t, dir, "boot1").Resume("a", 9); owed != nil {
		t.Errorf("after a raise owed %+v", owed)
	}
}

// TestEpochsOutliveACrash: the ledger's rule still holds after a crash.
func TestEpochsOutliveACrash(t *testing.T) {
	l := begin(t, acquired(t, nil), "boot1")
	j := newJournal()
	l.Start("a", Acquire, 6, told, []Action{sh("true")}, j.report, j.done)
	if o := j.wait(t); !o[0].Skipped {
		t.Errorf("an acquire action of epoch 6 ran after one of epoch 7: %+v", o)
	}
}

// TestAnotherFileStartsAnew: if the actions have changed, none of them counts as run.
func TestAnotherFileStartsAnew(t *testing.T) {
	g := newGate(t)
	dir := t.TempDir()
	first := begin(t, dir, "boot1")
	j := newJournal()
	first.Start("a", Acquire, 7, told, []Action{sh("true"), g.action()}, j.report, j.done)
	g.waitBegun(t)
	left := first.crash(t, dir)
	log := filepath.Join(t.TempDir(), "log")
	if d := cmp.Diff([]string{"acquire new"}, begin(t, left, "boot1").rerun(t, 7, []Action{sh("echo new >> " + log)}, log)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestJournalThatTakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	l := begin(t, dir, "boot1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	l.Start("a", Acquire, 7, told, []Action{sh("true")}, j.report, j.done)
	if o := j.wait(t); !o[0].OK {
		t.Errorf("outcome %+v", o)
	}
	if l.broken == nil || !strings.HasPrefix(l.broken.Error(), "journal of the actions of a: ") {
		t.Errorf("told %v", l.broken)
	}
}
