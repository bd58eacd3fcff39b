package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestRanks: which node ranks last, and a lease without an address (a role).
func TestRanks(t *testing.T) {
	record := filepath.Join(t.TempDir(), "record")
	script := filepath.Join(filepath.Dir(record), "record.sh")
	writeScript(t, script, "#!/bin/sh\necho \"$SIPALIVE_EVENT $SIPALIVE_VIP $SIPALIVE_NODE $SIPALIVE_ADDRESS\" >> \"$1\"\n")
	role := "[[role]]\nname = \"cdr\"\nprefer = \"spare\"\n"
	for _, phase := range []string{"acquire", "release"} {
		role += fmt.Sprintf("[[role.action]]\non = %q\nexec = [%q, %q]\n", phase, script, record)
	}
	s := start(t, cluster.Options{TOML: "[timing]\nhold_down = \"2s\"\n" + role})
	s.scene(t, "role of the spare", moves{0, 0}, func(t *testing.T, at time.Duration) { s.spareRole(t, record) })
	s.scene(t, "hold-down", moves{1, 0}, s.heldDown)
}

// spareRole: a role prefers the spare. When the spare's agent stops, the role goes to
// another node. Exactly one node has it at any time.
func (s *site) spareRole(t *testing.T, record string) {
	for i, want := range []int{1, 1, 0} {
		if c := s.cli(t, i, "role", "--spare"); c.code != want {
			t.Errorf("role --spare on %s: exit %d, want %d", s.Node(i).Name, c.code, want)
		}
	}
	await(t, "cdr held", func(context.Context) error {
		if s.roleHolder(t, 0) == "" {
			return errors.New("nobody has it")
		}
		return nil
	})
	if s.roleHolder(t, 0) != "pbx3" { // at first it depends on which agent started first
		s.done(t, 0, "move", "cdr", "pbx3")
	}
	s.oneHas(t, "pbx3")
	s.must(t, os.Truncate(record, 0))

	s.done(t, 2, "stop") // no spare is left: one of the other nodes must take it
	await(t, "cdr elsewhere", func(context.Context) error {
		if h := s.roleHolder(t, 0); h != "pbx1" && h != "pbx2" {
			return fmt.Errorf("it is at %q", h)
		}
		return nil
	})
	other := s.roleHolder(t, 0)
	s.told(t, record, "release cdr pbx3 ", "acquire cdr "+other+" ")

	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(t, inOrder(s.Agent(2).Wait(ctx)))
	s.must(t, s.StartAgent(2))
	await(t, "the spare back", s.atRest)
	s.oneHas(t, other) // nothing fails back by itself
}

func (s *site) roleHolder(t *testing.T, seenBy int) string {
	t.Helper()
	return s.status(t, seenBy, "status", func(st control.Status) bool { return len(st.Roles) == 1 }).Roles[0].Holder
}

// oneHas asks each node itself, as a cron job does.
func (s *site) oneHas(t *testing.T, holder string) {
	t.Helper()
	for i, h := range s.Nodes() {
		want := 1
		if h.Name == holder {
			want = 0
		}
		if c := s.cli(t, i, "role", "--holds", "cdr"); c.code != want {
			t.Errorf("role --holds cdr on %s: exit %d, want %d", h.Name, c.code, want)
		}
	}
}

// told waits for the lines that the actions wrote.
func (s *site) told(t *testing.T, record string, want ...string) {
	t.Helper()
	await(t, "the actions of the role", func(context.Context) error {
		text, err := os.ReadFile(record)
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		slices.Sort(lines)
		slices.Sort(want)
		if err == nil && !slices.Equal(lines, want) {
			err = fmt.Errorf("%q, want %q", lines, want)
		}
		return err
	})
}

// heldDown: a PBX that died and came back ranks last for a while, even behind a node that
// already holds a VIP.
func (s *site) heldDown(t *testing.T, at time.Duration) {
	s.PBX(2).Kill()
	s.status(t, 0, "pbx3 unfit", func(st control.Status) bool { return !node(st, "pbx3").Fit })
	s.must(t, s.StartPBX(2))
	s.status(t, 0, "pbx3 held down", func(st control.Status) bool { n := node(st, "pbx3"); return n.Fit && n.HeldDown })
	killed := lab.Now()
	s.PBX(0).Kill()
	s.hears(t, 0, "pbx2", killed)
	s.silent(t, 0, killed, 500*time.Millisecond)
	s.status(t, 1, "pbx3 no longer held down", func(st control.Status) bool { return !node(st, "pbx3").HeldDown })
}

// TestWitness: a third node that votes and never holds.
func TestWitness(t *testing.T) {
	s := start(t, cluster.Options{
		TOML: calm,
		Node: func(i int) string {
			if i == 3 {
				return "holder = false"
			}
			return ""
		},
		PBX: func(h *lab.Host) (lab.Spec, bool) {
			spec, _ := demoPBX(h)
			return spec, h.Name != "pbx3"
		},
	})
	s.scene(t, "PBX killed", moves{1, 0}, func(t *testing.T, at time.Duration) {
		s.PBX(0).Kill()
		s.hears(t, 0, "pbx2", at)
		s.silent(t, 0, at, 500*time.Millisecond)
	})
	s.scene(t, "host silent", moves{0, 1}, func(t *testing.T, at time.Duration) {
		s.must(t, s.Cut(s.Node(1)))
		s.hears(t, 1, "pbx1", at)
		s.silent(t, 1, at, 2500*time.Millisecond)
	})
	s.scene(t, "witness silent", moves{0, 0}, func(t *testing.T, at time.Duration) {
		s.must(t, s.Cut(s.Node(2)))
		watch(2 * time.Second)
		s.undisturbed(t, at)
	})
	s.scene(t, "move to the witness", moves{0, 0}, func(t *testing.T, at time.Duration) {
		if c := s.cli(t, 0, "move", "vip1", "pbx3"); c.code != 1 || !strings.Contains(c.err, "witness") {
			t.Errorf("move to the witness: exit %d, %q, want 1", c.code, c.err)
		}
		s.undisturbed(t, at)
	})
}
