package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestKeyRotation: three agents, each with its own key file, hear each other by two paths
// and the gateway's relay. The phones ask every millisecond.
func TestKeyRotation(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm, Paths: cluster.Both, Keys: true})
	s.scene(t, "at peace", moves{0, 0}, s.rotateAtPeace)
	s.scene(t, "under load", moves{1, 1}, s.rotateUnderLoad)
	s.scene(t, "interrupted", moves{0, 0}, s.rotateInterrupted)
	s.scene(t, "one away", moves{0, 0}, s.rotateWithout)
}

// key returns the only key in a node's file. Only the owner may read that file.
func (s *site) key(t *testing.T, node int) string {
	t.Helper()
	text, err := os.ReadFile(s.KeyFile(node))
	s.must(t, err)
	info, err := os.Stat(s.KeyFile(node))
	s.must(t, err)
	if lines := strings.Count(string(text), "\n"); lines != 1 || info.Mode().Perm() != 0o600 {
		t.Errorf("key file of %s: %d lines, mode %v", s.Node(node).Name, lines, info.Mode())
	}
	return string(text)
}

// rotated checks that every node's file holds the same new key, and that every node
// reports that one key.
func (s *site) rotated(t *testing.T, before string) {
	t.Helper()
	now := s.key(t, 0)
	if now == before {
		t.Error("the key is the old one")
	}
	for i := range s.Nodes() {
		if s.key(t, i) != now {
			t.Errorf("%s has another key than %s", s.Node(i).Name, s.Node(0).Name)
		}
		s.status(t, i, "one key everywhere", func(st control.Status) bool {
			for _, n := range st.Nodes {
				if n.UnknownKey || len(n.Keys) != 1 || n.Keys[0] != st.Nodes[0].Keys[0] {
					return false
				}
			}
			return len(st.KeyRotation) == 0
		})
	}
}

// refused counts the packets of other nodes that the nodes refused because of their keys.
func (s *site) refused(t *testing.T) (sum uint64) {
	t.Helper()
	for i := range s.Nodes() {
		st, err := s.Client(i).Status(context.Background())
		s.must(t, err)
		sum += st.Counters["member_wrong_key"] + st.Counters["member_garbage"] + st.Counters["member_gossip_errors"] + st.Counters["member_streams_refused"]
	}
	return sum
}

// rotateAtPeace: while the key is rotated and nothing else happens, the phones hear no
// pause. The observer's own stall is subtracted. A pause that the machine made, by giving
// a PBX no CPU time, does not come again at the next rotation; a pause that the agents
// make does. At the last attempt the time that the host took from the cores during the
// pause is subtracted too.
func (s *site) rotateAtPeace(t *testing.T, _ time.Duration) {
	const most, attempts = 50 * time.Millisecond, 3
	for attempt := 1; ; attempt++ {
		before, refused, since := s.key(t, 0), s.refused(t), lab.Now()
		matches(t, "key rotate", s.done(t, 0, "key", "rotate"), `(?m)^key rotated: [0-9a-f]{8} on pbx1, pbx2, pbx3$`)
		took := lab.Now() - since
		s.rotated(t, before)
		if n := s.refused(t) - refused; n > 0 {
			t.Errorf("%d packets were refused", n)
		}
		var pause time.Duration
		for v := range s.VIPs {
			r := s.saw(v, since)
			t.Logf("rotated in %v, %s: %v", took, cluster.VIPName(v), r)
			long, from, to := r.Gap, r.GapFrom, r.GapTo
			if r.Silence > long {
				long, from, to = r.Silence, r.SilenceFrom, r.SilenceTo
			}
			if attempt == attempts {
				lost, err := lab.WatchStolen().Between(from, to)
				s.must(t, err)
				t.Logf("stolen by the host meanwhile: %v", lost)
				long -= lost
			}
			pause = max(pause, long-r.Stall)
		}
		if pause <= most {
			return
		}
		if attempt == attempts {
			t.Errorf("phones heard nothing for %v more than the host took, and for more than %v in each of %d rotations", pause, most, attempts)
			return
		}
	}
}

// rotateUnderLoad: a planned move and a PBX's death during the rotation. What had to move
// moves, no packet is refused, and no lease is lost.
func (s *site) rotateUnderLoad(t *testing.T, at time.Duration) {
	before, refused, began := s.key(t, 0), s.refused(t), time.Now()
	rotated := make(chan command, 1)
	go func() { rotated <- s.cli(t, 0, "key", "rotate") }()
	s.done(t, 0, "move", "vip1", "pbx3")
	s.PBX(1).Kill()
	s.hears(t, 0, "pbx3", at)
	s.hears(t, 1, "pbx1", at)
	moved := time.Since(began)
	c := <-rotated
	took := time.Since(began)
	t.Logf("moved after %v, rotated after %v", moved, took)
	if c.code != 0 || c.err != "" || moved > took {
		t.Fatalf("exit %d: %s%s", c.code, c.out, c.err)
	}
	lines := strings.Split(strings.TrimSpace(c.out), "\n")
	if len(lines) != 10 {
		t.Errorf("%d lines, want one per step and node and the outcome:\n%s", len(lines), c.out)
	}
	for i, step := range []string{"accepts the new key", "seals with the new key", "dropped every key but"} {
		for _, l := range lines[min(3*i, len(lines)):min(3*i+3, len(lines))] {
			matches(t, "key rotate", l, `^pbx[123] `+step+` [0-9a-f]{8}$`)
		}
	}
	matches(t, "key rotate", lines[len(lines)-1], `^key rotated: [0-9a-f]{8} on pbx1, pbx2, pbx3$`)
	s.rotated(t, before)
	if n := s.refused(t) - refused; n > 0 {
		t.Errorf("%d packets were refused", n)
	}
	for v := range s.VIPs {
		s.silent(t, v, at, 300*time.Millisecond)
	}
	for i := range s.Nodes() {
		s.calmSince(t, i, began)
	}
}

// calmSince: no lease was lost, no node fell silent, and the journal shows the rotation.
func (s *site) calmSince(t *testing.T, node int, began time.Time) {
	t.Helper()
	events, err := s.Client(node).Events(context.Background(), 1000)
	s.must(t, err)
	keys := 0
	for _, e := range events {
		if e.Time.Before(began.Truncate(time.Millisecond)) {
			continue
		}
		switch {
		case e.Kind == control.KindKey:
			keys++
		case e.Kind == control.KindQuorum, e.Kind == control.KindVacant, e.Kind == control.KindSurvivor, strings.Contains(e.Text, "silent"), strings.Contains(e.Text, "the lease ended"):
			t.Errorf("%s: %s: %s", s.Node(node).Name, e.Kind, e.Text)
		}
	}
	if keys != 3 {
		t.Errorf("%s: %d events of the rotation, want one for each step", s.Node(node).Name, keys)
	}
}

// rotateInterrupted kills the agent that drives the rotation in the middle of it. The
// others report that. Once it is back, any node can finish the rotation.
func (s *site) rotateInterrupted(t *testing.T, at time.Duration) {
	before, refused := s.key(t, 0), s.refused(t)
	cmd := exec.Command(binary, "key", "rotate", "--run-dir", s.RunDir(2))
	out, err := cmd.StdoutPipe()
	s.must(t, err)
	s.must(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "seals"); {
	}
	s.must(t, s.Agent(2).Signal(unix.SIGKILL))
	if err := cmd.Wait(); err == nil {
		t.Error("key rotate says nothing of its agent's end")
	}
	<-s.Agent(2).Done()
	matches(t, "status", s.done(t, 0, "status"), `\n! key rotation has not ended: pbx1 seals with [0-9a-f]{8}, opens with [0-9a-f]{8} too.* \(sipalive key rotate finishes it\)\n`)
	s.must(t, s.StartAgent(2))
	s.status(t, 0, "pbx3 is back", func(st control.Status) bool { return node(st, "pbx3").Alive })
	began := lab.Now()
	matches(t, "key rotate", s.done(t, 1, "key", "rotate"), `\nkey rotated: `)
	t.Logf("finished in %v", lab.Now()-began)
	s.rotated(t, before)
	if n := s.refused(t) - refused; n > 0 { // pbx3's counters start again, and stay at 0
		t.Errorf("%d packets were refused", n)
	}
}

// rotateWithout: a node that is down is named, and nothing is changed. It may be left
// out; a node that is up may not. When it comes back with the old key, every node names
// it, and it hears no other node until it gets the key file.
func (s *site) rotateWithout(t *testing.T, at time.Duration) {
	before := s.key(t, 0)
	s.must(t, s.Agent(2).Signal(unix.SIGKILL))
	<-s.Agent(2).Done()
	s.status(t, 0, "pbx3 is silent", func(st control.Status) bool { return !node(st, "pbx3").Alive })
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `^key rotate: pbx3 is not heard; nothing was changed \(`},
		{[]string{"--without", "pbx2"}, `^key rotate: without pbx2: it is heard, and would be cut off`},
		{[]string{"--without", "pbx9"}, `^key rotate: without pbx9: no such node`},
	} {
		got := s.cli(t, 0, append([]string{"key", "rotate"}, c.args...)...)
		matches(t, "key rotate", got.err, c.want)
		if got.code != 1 || got.out != "" {
			t.Errorf("%v: exit %d: %s", c.args, got.code, got.out)
		}
	}
	if s.key(t, 0) != before || s.key(t, 1) != before {
		t.Fatal("a rotation that was refused changed a key")
	}
	matches(t, "key rotate", s.done(t, 0, "key", "rotate", "--without", "pbx3"), `\nkey rotated: [0-9a-f]{8} on pbx1, pbx2; not on pbx3: `)
	s.must(t, s.StartAgent(2))
	for i, strangers := range [][]string{{"pbx3"}, {"pbx3"}, {"pbx1", "pbx2"}} {
		for _, n := range strangers {
			s.status(t, i, n+" has an unknown key", func(st control.Status) bool { return node(st, n).UnknownKey && !node(st, n).Alive })
		}
	}
	matches(t, "status", s.done(t, 0, "status"), `\n! pbx3 speaks with a key that pbx1 has not \(`)
	text, err := os.ReadFile(s.KeyFile(0))
	s.must(t, err)
	s.must(t, os.WriteFile(s.KeyFile(2), text, 0o600))
	s.done(t, 2, "reload")
	await(t, "the cluster at rest", s.atRest)
	s.rotated(t, before)
	events, err := s.Client(0).Events(context.Background(), 1000)
	s.must(t, err)
	said := fmt.Sprint(events)
	for _, want := range []string{"pbx3 speaks with an unknown key", "pbx3 speaks with a key of ours again"} {
		if !strings.Contains(said, want) {
			t.Errorf("no event says %q", want)
		}
	}
}
