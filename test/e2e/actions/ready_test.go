package actions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
)

// TestReadyCheck: FreeSWITCH itself is asked beside OPTIONS. A pause, by the operator or
// by the agent's own drain, is no sickness. Neither ready nor paused is one.
func TestReadyCheck(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("ClueCon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var boards []*switchboard
	s := start(t, cluster.Options{TOML: calm + fmt.Sprintf("[freeswitch]\npassword_file = %q\nready_check = true\n", password)}, nil)
	for i := range s.Nodes() {
		boards = append(boards, s.startSwitchboard(i))
		s.says(i, "ok", true)
	}
	before := s.holder("pbx1")
	stays := func(what string) {
		t.Helper()
		if v := s.holder("pbx1"); v.Epoch != before.Epoch {
			t.Errorf("%s: moved: %+v, before %+v", what, v, before)
		}
	}
	boards[0].be(false, true)
	s.says(0, "paused", true)
	time.Sleep(fallTime) // the test asserts that nothing happens meanwhile
	s.says(0, "paused", true)
	stays("paused by an operator")
	boards[0].be(false, false)
	s.says(0, "ok", true)

	boards[0].set(1)
	cmd, out := s.drain("30m")
	s.untilPaused(boards[0], true)
	s.says(0, "paused", true)
	time.Sleep(fallTime) // the test asserts that nothing happens meanwhile
	s.says(0, "paused", true)
	stays("paused by its own drain")
	boards[0].set(0)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out())
	}
	s.holder("pbx2", "pbx3")
	s.says(0, "ok", false)
	if n := s.status(0).Nodes[0]; !n.Drained || n.Why != "" {
		t.Errorf("drained, and %+v", n)
	}
	if _, err := s.do(0, control.Command{Kind: control.Undrain}); err != nil {
		t.Fatal(err)
	}
	s.move("vip1", "pbx1")
	before = s.holder("pbx1")

	boards[0].be(true, false)
	v := s.holder("pbx2", "pbx3")
	s.says(0, "unfit", false)
	if n := s.status(0).Nodes[0]; n.SIP != "up" || !strings.HasPrefix(n.Why, "its own checks say no: freeswitch: ") {
		t.Errorf("neither ready nor paused: %+v", n)
	}
	if v.Epoch <= before.Epoch {
		t.Errorf("%+v after %+v", v, before)
	}
	if r := s.reason(v); r != "check" {
		t.Errorf("moved for %q, want check", r)
	}
	boards[0].be(false, false)
	s.says(0, "ok", true)
}

// fallTime is how long it takes to be called unfit: three answers, one per second.
const fallTime = 3500 * time.Millisecond

// says waits until a node's status shows this state of its FreeSWITCH, and this fitness.
func (s *site) says(node int, state string, fit bool) {
	s.t.Helper()
	s.await(fmt.Sprintf("FreeSWITCH of %s %s, fit %v", s.Node(node).Name, state, fit), func(context.Context) error {
		n := s.status(node).Nodes[node]
		if len(n.Checks) != 1 || n.Checks[0].Name != "freeswitch" || n.Checks[0].State != state || n.Fit != fit {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
}

// reason returns why a VIP went to its holder.
func (s *site) reason(v control.VIPStatus) (reason string) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	events, err := s.Client(s.Index(v.Holder)).Events(ctx, 1000)
	s.must(err)
	for _, e := range events {
		if e.Kind == control.Takeover && e.VIP == v.Name && e.Epoch == v.Epoch {
			reason = e.Reason
		}
	}
	return reason
}
