package actions

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"sipalive/test/cluster"
)

// role asks as cron does: no output, an exit code.
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
// actions; whoever asks gets the answer from the agent beside it.
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
