package actions

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
)

// role asks as a cron job does: it reads only the exit code.
func (s *site) role(node int, args ...string) (code int, took time.Duration) {
	s.t.Helper()
	began := time.Now()
	err := exec.Command(binary, append([]string{"role", "--run-dir", s.RunDir(node)}, args...)...).Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return code, time.Since(began)
}

// roleHolder waits until every live node sees the role cdr at one of the nodes.
func (s *site) roleHolder(nodes ...string) (node string, epoch uint64) {
	s.t.Helper()
	s.await(fmt.Sprintf("cdr at %q", nodes), func(context.Context) error {
		for i := range s.Nodes() {
			if s.dead(i) {
				continue
			}
			r := s.status(i).Roles[0]
			if r.State != "held" || !slices.Contains(nodes, r.Holder) {
				return fmt.Errorf("%s: %s at %q", s.Node(i).Name, r.State, r.Holder)
			}
			node, epoch = r.Holder, r.Epoch
		}
		return nil
	})
	return node, epoch
}

// TestRole: a job that runs on the spare moves on when the spare dies, and runs its
// actions. Each node's own agent answers who has the role.
func TestRole(t *testing.T) {
	written := false
	s := start(t, cluster.Options{VIPs: 2, TOML: calm}, func(at *site) string {
		if written { // the role's table follows the first VIP's
			return ""
		}
		written = true
		say := at.script("note", note)
		return "[[role]]\nname = \"cdr\"\n[[role.action]]\non = \"acquire\"\nexec = [\"" + say + "\", \"job\"]\n" +
			"[[role.action]]\non = \"release\"\nexec = [\"" + say + "\", \"job\"]\n"
	})
	_, epoch := s.roleHolder("pbx3") // pbx1 and pbx2 hold a VIP each
	s.recorded(fmt.Sprintf("pbx3 acquire cdr %d job", epoch))
	var worst time.Duration
	for i, want := range []int{1, 1, 0} {
		for range 10 {
			code, took := s.role(i, "--holds", "cdr")
			if code != want {
				t.Fatalf("role --holds cdr on %s: exit %d, want %d", s.Node(i).Name, code, want)
			}
			worst = max(worst, took)
		}
	}
	t.Logf("role --holds cdr, the slowest of 30: %v", worst)
	if worst > time.Second {
		t.Errorf("role --holds cdr took %v", worst)
	}
	if code, _ := s.role(2, "--spare"); code != 0 {
		t.Errorf("role --spare on pbx3: exit %d", code)
	}

	s.Agent(2).Kill()
	node, epoch := s.roleHolder("pbx1", "pbx2")
	s.recorded(fmt.Sprintf("%s acquire cdr %d job", node, epoch))
	s.must(s.StartAgent(2))
	s.recorded(fmt.Sprintf("pbx3 release cdr %d job", 1))
	if code, _ := s.role(s.Index(node), "--holds", "cdr"); code != 0 {
		t.Errorf("role --holds cdr on %s: exit %d", node, code)
	}
	if code, _ := s.role(2, "--holds", "cdr"); code != 1 {
		t.Errorf("role --holds cdr on pbx3, which came back: exit %d", code)
	}
}

// timed is an action program that records when it begins and ends, in ns of the one clock
// that all nodes share. It lasts as long as its argument says.
const timed = `#!/bin/sh
echo "$SIPALIVE_NODE $SIPALIVE_EVENT $SIPALIVE_EPOCH begin $(date +%s%N)" >> RECORD
sleep $1
echo "$SIPALIVE_NODE $SIPALIVE_EVENT $SIPALIVE_EPOCH end $(date +%s%N)" >> RECORD
`

// when returns the recorded time of an action's begin or end, 0 if there is none.
func (s *site) when(node, event string, epoch uint64, what string) (at int64) {
	s.t.Helper()
	for _, l := range s.lines() {
		if rest, is := strings.CutPrefix(l, fmt.Sprintf("%s %s %d %s ", node, event, epoch, what)); is {
			var err error
			at, err = strconv.ParseInt(rest, 10, 64)
			s.must(err)
		}
	}
	return at
}

// TestRoleActionsDoNotOverlap: a role's job ends at the old holder before it begins at
// the new one, whatever the cause of the move, even if that takes longer than a lease.
func TestRoleActionsDoNotOverlap(t *testing.T) {
	s := start(t, cluster.Options{VIPs: 1, TOML: "[timing]\nlease = \"1s\"\nhold_down = \"0s\"\n"}, func(at *site) string {
		say := at.script("timed", timed)
		return "[[role]]\nname = \"cdr\"\nprefer = [\"pbx2\"]\n[[role.action]]\non = \"acquire\"\nexec = [\"" + say + "\", \"0\"]\n" +
			"[[role.action]]\non = \"release\"\nexec = [\"" + say + "\", \"2.5\"]\n"
	})
	old, epoch := s.roleHolder("pbx2")
	s.handed(old, epoch, "a move", func() string {
		if _, err := s.do(0, control.Command{Kind: control.Move, VIP: "cdr", Node: "pbx3"}); err != nil {
			t.Error(err)
		}
		return "pbx3"
	})
	old, epoch = s.roleHolder("pbx3")
	s.handed(old, epoch, "a drain", func() string {
		if _, err := s.do(0, control.Command{Kind: control.Drain, Node: "pbx3"}); err != nil {
			t.Error(err)
		}
		to, _ := s.roleHolder("pbx1", "pbx2")
		return to
	})
	old, epoch = s.roleHolder("pbx1", "pbx2")
	s.handed(old, epoch, "the end of its agent", func() string {
		if _, err := s.do(s.Index(old), control.Command{Kind: control.Stop}); err != nil {
			t.Error(err)
		}
		<-s.Agent(s.Index(old)).Done()
		to, _ := s.roleHolder(slices.DeleteFunc([]string{"pbx1", "pbx2", "pbx3"}, func(n string) bool { return n == old })...)
		return to
	})
}

// handed moves the role away from its holder. Meanwhile it asks the old holder whether it
// holds the role; then it compares the times of both nodes.
func (s *site) handed(old string, epoch uint64, why string, move func() (to string)) {
	s.t.Helper()
	var wg sync.WaitGroup
	var to string
	wg.Go(func() { to = move() })
	s.await("the release at "+old, func(context.Context) error {
		if s.when(old, "release", epoch, "begin") == 0 {
			return errors.New("not begun")
		}
		return nil
	})
	if code, _ := s.role(s.Index(old), "--holds", "cdr"); code != 1 && s.when(old, "release", epoch, "end") == 0 {
		s.t.Errorf("%s: role --holds cdr on %s, whose release actions run: exit %d", why, old, code)
	}
	wg.Wait()
	_, taken := s.roleHolder(to)
	s.await("the acquire at "+to, func(context.Context) error {
		if s.when(to, "acquire", taken, "begin") == 0 {
			return errors.New("not begun")
		}
		return nil
	})
	began, ended, next := s.when(old, "release", epoch, "begin"), s.when(old, "release", epoch, "end"), s.when(to, "acquire", taken, "begin")
	s.t.Logf("%s: release at %s took %v, acquire at %s began %v after its end", why, old, time.Duration(ended-began), to, time.Duration(next-ended))
	if ended == 0 || next < ended {
		s.t.Errorf("%s: %s began its acquire action %v after %s began its release action, which ended at %d", why, to, time.Duration(next-began), old, ended)
	}
}
