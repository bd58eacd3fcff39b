package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/hooks"
)

// telling returns a recording whose notices a script writes to a file, and a function
// that reads them.
func telling(t *testing.T) (r *recording, said func() []string) {
	t.Helper()
	dir := t.TempDir()
	script, file := filepath.Join(dir, "tell"), filepath.Join(dir, "told")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$SIPALIVE_EVENT $SIPALIVE_VIP $SIPALIVE_EPOCH: $SIPALIVE_TEXT\" >> "+file+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r = newRecording(t)
	text := home + "[[notify]]\nevents = [\"takeover\", \"vacant\", \"all_unfit\"]\nexec = [\"" + script + "\"]\n"
	c, err := config.Parse("home.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.a.inForce.Store(&settled{config: c, names: newNames(c, nil)})
	r.a.Self = c.Node("pbx1")
	r.a.Runner = hooks.NewRunner(hooks.Options{Now: func() int64 { return int64(time.Since(start)) }})
	t.Cleanup(func() { _ = r.a.Runner.Close(context.Background()) })
	r.a.ended = make(chan struct{})
	close(r.a.ended) // no loop answers which node is alive, so this node counts as the lowest
	r.notify = newNotifier(r.a)
	return r, func() []string {
		r.settle()
		for end := time.Now().Add(20 * time.Second); len(r.notify.pending) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a notice is still under way")
			}
		}
		told, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(told)), "\n")
	}
}

// TestTakeoverIsToldOnce: a takeover is told once, with its cause and how long it took.
func TestTakeoverIsToldOnce(t *testing.T) {
	r, said := telling(t)
	for range 2 {
		r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx1", Epoch: 8, Previous: "pbx2", Cause: elect.CauseSIP,
			Noticed: r.at(-5 * time.Millisecond), Vacant: r.at(0)}})
		r.mark(vip1, 8, "sip answered", r.at(6*time.Millisecond))
		r.complete(vip1, 8, "done")
		r.complete(vip1, 8, "done")
	}
	r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx1", Epoch: 9, Cause: elect.CauseBoot, Noticed: r.at(0), Vacant: r.at(0)}})
	r.complete(vip1, 9, "vip1 does not answer SIP: no answer")
	got := strings.Join(said(), "\n")
	want := "takeover vip1 8: [sipalive pbx-dc1] vip1: pbx2 -> pbx1, sip, in 11.0 ms\n" +
		"takeover vip1 9: [sipalive pbx-dc1] vip1: nobody -> pbx1, boot, in 0.0 ms: vip1 does not answer SIP: no answer"
	if got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
}

// TestSicknessIsNotToldAgainAndAgain: a state that flaps is told once a minute. Its end
// is told, however soon it comes.
func TestSicknessIsNotToldAgainAndAgain(t *testing.T) {
	r, said := telling(t)
	for range 3 {
		r.transitions([]elect.Transition{{Kind: elect.AllUnfit}, {Kind: elect.AllUnfitOver}})
	}
	got := said()
	if len(got) != 2 || got[0] != "all_unfit  0: [sipalive pbx-dc1] no node is fit: nobody moves" ||
		!strings.HasPrefix(got[1], "all_unfit  0: [sipalive pbx-dc1] a node is fit again, after ") {
		t.Errorf("told %q", got)
	}
}

// TestAlarmThatComesBackAndStays: an alarm that comes back too soon is told once the time
// is up, unless it is over by then. Its end is told too.
func TestAlarmThatComesBackAndStays(t *testing.T) {
	r, said := telling(t)
	r.notify.again = 300 * time.Millisecond
	vacant := func() {
		r.transitions([]elect.Transition{{Kind: elect.VIPVacant, VIP: vip1, Epoch: 7, Text: "no node is fit"}})
	}
	held := func() {
		r.transitions([]elect.Transition{{Kind: elect.HolderSeen, VIP: vip1, Node: "pbx2", Epoch: 8}})
	}
	vacant()
	held()
	held()
	vacant()
	held()
	r.settle()
	for end := time.Now().Add(20 * time.Second); r.notify.alarms["vacant vip1"].deferred; time.Sleep(time.Millisecond) {
		if r.settle(); time.Now().After(end) {
			t.Fatal("the time is never up")
		}
	}
	vacant() // now the same, with a second one in between
	held()
	vacant()
	held()
	vacant()
	if got := said(); len(got) != 4 {
		t.Fatalf("told before its time: %q", got)
	}
	var got []string
	for end := time.Now().Add(20 * time.Second); len(got) < 5; time.Sleep(time.Millisecond) {
		if got = said(); time.Now().After(end) {
			t.Fatalf("told %q", got)
		}
	}
	held()
	got = said()
	const vacancy, end = "nobody holds vip1: no node is fit", "vip1 is held again, by pbx2, after "
	for i, want := range []string{vacancy, end, vacancy + " (and 1 times since ", end, vacancy + " (and 1 times since ", end} {
		if i >= len(got) || !strings.Contains(got[i], "] "+want) {
			t.Fatalf("told %q, want %q as number %d", got, want, i+1)
		}
	}
	if len(got) != 6 {
		t.Errorf("told %q", got)
	}
}

// TestNoticesOfOtherEventsAreNotSent: a way gets only the events that it asked for.
func TestNoticesOfOtherEventsAreNotSent(t *testing.T) {
	r, said := telling(t)
	r.notice(config.NoticeRival, r.a.names().byName["vip1"], 7, "another machine claims it")
	if got := said(); len(got) != 1 || got[0] != "" {
		t.Errorf("told %q", got)
	}
}

// TestUnreachableIsActedOnOnce: however often the router is found not to follow, the
// actions of that takeover run once, and people are told.
func TestUnreachableIsActedOnOnce(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	r, said := telling(t)
	r.notify.ways[0].events = []config.Notice{config.NoticeUnreachable}
	l := r.a.names().byID[vip1]
	l.actions = []hooks.Action{{On: hooks.Unreachable, Exec: []string{"/bin/sh", "-c", "echo $SIPALIVE_EVENT $SIPALIVE_EPOCH $SIPALIVE_REASON >> " + ran}}}
	x := newActions(r.a)
	r.a.actions = x
	x.set(vip1, takeover{epoch: 8, took: 8, previous: "pbx2"})
	for range 3 {
		x.unreachable(vip1, "no answer from the gateway for 10 s")
	}
	x.chains.Wait()
	text, err := os.ReadFile(ran)
	if err != nil || string(text) != "unreachable 8 no answer from the gateway for 10 s\n" {
		t.Errorf("ran %q, %v", text, err)
	}
	if got := said(); len(got) != 1 || got[0] != "unreachable vip1 8: [sipalive pbx-dc1] no answer from the gateway for 10 s" {
		t.Errorf("told %q", got)
	}
}
