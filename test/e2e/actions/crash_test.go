package actions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sipalive/control"
	"sipalive/test/cluster"
)

// TestAgentDiesInTheMiddle kills an agent while the second of three acquire actions runs.
// When it is started again it keeps holding, and runs the second and the third action.
// Killed and away until its lease has ended, it runs release.
func TestAgentDiesInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	open, begun := filepath.Join(dir, "open"), filepath.Join(dir, "begun")
	s := start(t, cluster.Options{}, func(s *site) string {
		say := s.script("note", note)
		// Waits only on pbx2, and ends by itself when the agent that started it is gone.
		wait := s.script("wait", fmt.Sprintf("#!/bin/sh\n[ $SIPALIVE_NODE = pbx2 ] || exit 0\ntouch %s\nfor i in $(seq 1000); do [ -e %s ] && exec %s second; sleep 0.01; done\n", begun, open, say))
		return action("acquire", "", say, "first") + action("acquire", "timeout = \"30s\"", wait) + action("acquire", "", say, "third") +
			action("release", "", say, "gone")
	})
	epoch := s.move("vip1", "pbx2")
	s.await("the second action", func(context.Context) error { _, err := os.Stat(begun); return err })
	s.Agent(1).Kill()
	s.must(os.WriteFile(open, nil, 0o600))
	s.must(s.StartAgent(1))
	s.recorded(fmt.Sprintf("pbx2 acquire vip1 %d third", epoch))
	if v := s.holder("pbx2"); v.Epoch != epoch || !v.Verified {
		t.Errorf("after the restart: %+v", v)
	}
	if n := s.count(fmt.Sprintf("pbx2 acquire vip1 %d first", epoch)); n != 1 {
		t.Errorf("the first action ran %d times", n)
	}
	// The first of the two runs that began may have ended too, once its gate was open.
	if n := s.count(fmt.Sprintf("pbx2 acquire vip1 %d second", epoch)); n < 1 || n > 2 {
		t.Errorf("the second action ended %d times", n)
	}

	s.Agent(1).Kill()
	s.holder("pbx1", "pbx3")
	if n := s.count(fmt.Sprintf("pbx2 release vip1 %d gone", epoch)); n != 0 {
		t.Fatalf("a dead agent ran %d release actions", n)
	}
	s.must(s.StartAgent(1))
	s.recorded(fmt.Sprintf("pbx2 release vip1 %d gone", epoch))
	if n := s.count(fmt.Sprintf("pbx2 acquire vip1 %d third", epoch)); n != 1 {
		t.Errorf("the third action ran %d times", n)
	}
}

// TestFailedActionGivesBack: if an acquire action with on_failure = "release" fails, the
// VIP moves on, once. If it fails on every node, the last node keeps the VIP.
func TestFailedActionGivesBack(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	s := start(t, cluster.Options{}, func(s *site) string {
		say := s.script("note", note)
		check := s.script("check", fmt.Sprintf("#!/bin/sh\n! grep -qw $SIPALIVE_NODE %s 2>/dev/null\n", bad))
		return action("acquire", "on_failure = \"release\"\nretries = 1", check) + action("acquire", "", say, "after") +
			action("failed", "", say, "sad")
	})
	s.must(os.WriteFile(bad, []byte("pbx2\n"), 0o600))
	epoch := s.move("vip1", "pbx2")
	s.recorded(fmt.Sprintf("pbx2 failed vip1 %d sad", epoch))
	if n := s.count(fmt.Sprintf("pbx2 acquire vip1 %d after", epoch)); n != 0 {
		t.Errorf("the action after the failed one ran %d times", n)
	}
	s.holder("pbx1", "pbx3")

	s.must(os.WriteFile(bad, []byte("pbx1\npbx2\npbx3\n"), 0o600))
	before := s.holder("pbx1", "pbx3")
	to := map[string]string{"pbx1": "pbx3", "pbx3": "pbx1"}[before.Holder]
	s.move("vip1", to)
	s.holdsOn()
}

// holdsOn waits until the node that has vip1 after all have failed keeps it, and says so.
func (s *site) holdsOn() {
	s.t.Helper()
	var v control.VIPStatus
	s.await("a node that holds on", func(ctx context.Context) error {
		v = s.status(0).VIPs[0]
		if v.Holder == "" || v.Unchecked {
			return fmt.Errorf("%s at %q", v.State, v.Holder)
		}
		events, err := s.Client(s.Index(v.Holder)).Events(ctx, 100)
		if err == nil && !slices.ContainsFunc(events, func(e control.Event) bool {
			return e.Kind == control.KindVerify && e.Epoch == v.Epoch && strings.Contains(e.Text, "holding on: no other fit node is left to try")
		}) {
			err = fmt.Errorf("%s does not hold on", v.Holder)
		}
		return err
	})
	s.recorded(fmt.Sprintf("%s failed vip1 %d sad", v.Holder, v.Epoch))
	if after := s.status(0).VIPs[0]; after.Epoch != v.Epoch || after.Verified {
		s.t.Errorf("it went on from %+v to %+v", v, after)
	}
}

// TestFailedPrepareIsNotReady: the holder keeps a VIP for which its successor is not
// ready.
func TestFailedPrepareIsNotReady(t *testing.T) {
	s := start(t, cluster.Options{}, func(s *site) string {
		return action("prepare", "on_failure = \"release\"", "/bin/false")
	})
	before := s.status(0).VIPs[0]
	if text, err := s.do(0, control.Command{Kind: control.Move, VIP: "vip1", Node: "pbx2"}); err == nil {
		t.Errorf("moved: %s", text)
	} else {
		t.Log(err)
	}
	if after := s.status(0).VIPs[0]; after.Holder != before.Holder || after.Epoch != before.Epoch {
		t.Errorf("from %+v to %+v", before, after)
	}
}
