package actions

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"sipalive/test/cluster"
)

// flush runs `sipalive flush` at a node, and returns its table and exit code.
func (s *site) flush(node int) (table string, code int) {
	s.t.Helper()
	out, err := exec.Command(binary, "flush", "--run-dir", s.RunDir(node)).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(out), code
}

// TestFlushEverywhere: every node runs its actions once, whichever node is asked. The
// table names an action that failed on one node, and a dead node.
func TestFlushEverywhere(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm + "[[action]]\non = \"flush\"\nexec = [\"/bin/true\"]\n" +
		"[[action]]\non = \"flush\"\nexec = [\"/bin/sh\", \"-c\", \"[ $SIPALIVE_NODE != pbx2 ]\"]\n"}, nil)
	table, code := s.flush(2)
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if len(rows) != 7 || code != 1 {
		t.Fatalf("exit %d\n%s", code, table)
	}
	for i, want := range []string{"NODE ACTION RESULT TOOK NOTE", "pbx1 exec /bin/true ok", "pbx1 exec /bin/sh ok", "pbx2 exec /bin/true ok",
		"pbx2 exec /bin/sh failed", "pbx3 exec /bin/true ok", "pbx3 exec /bin/sh ok"} {
		if got := strings.Join(strings.Fields(rows[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
	s.Agent(1).Kill()
	s.await("pbx2 not heard", func(context.Context) error {
		if s.status(0).Nodes[1].Alive {
			return errors.New("it is")
		}
		return nil
	})
	table, code = s.flush(0)
	if !strings.Contains(table, "pbx2  -") || !strings.Contains(table, "not heard") || strings.Count(table, "  ok  ") != 4 || code != 1 {
		t.Errorf("with a dead node: exit %d\n%s", code, table)
	}
}

func TestFlushWithoutActions(t *testing.T) {
	s := start(t, cluster.Options{Nodes: []string{"pbx1"}}, nil)
	if table, code := s.flush(0); table != "" || code != 1 {
		t.Errorf("exit %d\n%s", code, table)
	}
}
