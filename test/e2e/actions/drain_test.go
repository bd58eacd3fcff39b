package actions

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sipalive/eventsocket/recorded"
	"sipalive/test/cluster"
)

// switchboard stands in for a FreeSWITCH, as far as a drain and its readiness need one.
// It answers with the recorded bytes, and has as many calls as the test says.
type switchboard struct {
	t      *testing.T
	mu     sync.Mutex
	calls  int
	paused bool
	sick   bool                // neither ready nor paused
	said   map[string][]string // recorded answers to a command, in order
}

// startSwitchboard listens on the node's own loopback.
func (s *site) startSwitchboard(node int) *switchboard {
	s.t.Helper()
	b := &switchboard{t: s.t, said: map[string][]string{}}
	for _, file := range []string{"pause-resume-ready.txt", "calls-count.txt"} {
		steps := recorded.Load(s.t, file)
		for i := range steps[:len(steps)-1] {
			if command, is := strings.CutPrefix(steps[i].Client, "api "); is {
				command = strings.TrimSpace(command)
				b.said[command] = append(b.said[command], steps[i+1].Server)
			}
		}
	}
	var l net.Listener
	s.must(s.Node(node).Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:8021"); return err }))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); b.serve(conn) })
		}
	})
	s.t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

func (b *switchboard) serve(conn net.Conn) {
	login := recorded.Load(b.t, "auth-ok-status.txt")
	_, _ = io.WriteString(conn, login[0].Server)
	for br := bufio.NewReader(conn); ; {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = br.ReadString('\n')
		answer := login[2].Server
		if command, is := strings.CutPrefix(strings.TrimSpace(line), "api "); is {
			answer = b.answer(command)
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

func (b *switchboard) answer(command string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch said := b.said[command]; command {
	case "fsctl pause_check":
		if b.paused {
			return said[1]
		}
		return said[0]
	case "fsctl ready_check": // the recording has the paused answer first
		if b.paused || b.sick {
			return said[0]
		}
		return said[1]
	case "fsctl pause", "fsctl resume":
		b.paused = command == "fsctl pause"
		return said[0]
	case "show calls count":
		text := fmt.Sprintf("\n%d total.\n", b.calls)
		return strings.NewReplacer("Length: 10", fmt.Sprintf("Length: %d", len(text)), "\n0 total.\n", text).Replace(said[0])
	}
	b.t.Errorf("a drain asks %q", command)
	return ""
}

func (b *switchboard) set(calls int) { b.mu.Lock(); b.calls = calls; b.mu.Unlock() }

func (b *switchboard) be(sick, paused bool) {
	b.mu.Lock()
	b.sick, b.paused = sick, paused
	b.mu.Unlock()
}

func (b *switchboard) isPaused() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.paused }

func (s *site) untilPaused(b *switchboard, want bool) {
	s.t.Helper()
	s.await(fmt.Sprintf("new calls refused: %v", want), func(context.Context) error {
		if b.isPaused() != want {
			return errors.New("not yet")
		}
		return nil
	})
}

// drain starts `sipalive drain --wait-calls` on pbx1.
func (s *site) drain(args ...string) (cmd *exec.Cmd, out func() string) {
	s.t.Helper()
	file, err := os.CreateTemp(s.t.TempDir(), "drain")
	s.must(err)
	cmd = exec.Command(binary, append([]string{"drain", "--run-dir", s.RunDir(0), "--wait-calls"}, args...)...)
	cmd.Stdout, cmd.Stderr = file, file
	s.must(cmd.Start())
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); file.Close() })
	return cmd, func() string {
		text, err := os.ReadFile(file.Name())
		s.must(err)
		return string(text)
	}
}

// TestDrainWaitsForCalls: new calls are refused, the move waits for the last call, then
// new calls are let in again. If the drain is cancelled, or its agent is killed in the
// middle, everything is as before.
func TestDrainWaitsForCalls(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("ClueCon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, cluster.Options{TOML: calm + fmt.Sprintf("[freeswitch]\npassword_file = %q\n", password)}, nil)
	b := s.startSwitchboard(0)
	b.set(2)
	before := s.holder("pbx1")

	cmd, out := s.drain("30m")
	s.untilPaused(b, true)
	s.must(cmd.Process.Signal(syscall.SIGINT))
	if err := cmd.Wait(); err == nil || !strings.Contains(out(), "interrupted: nothing was moved, and new calls are let in again") {
		t.Errorf("interrupted: %v\n%s", err, out())
	}
	s.untilPaused(b, false)

	s.drain("30m")
	s.untilPaused(b, true)
	s.Agent(0).Kill()
	s.must(s.StartAgent(0))
	s.untilPaused(b, false)
	if v := s.holder("pbx1"); v.Epoch != before.Epoch {
		t.Errorf("moved: %+v, before %+v", v, before)
	}

	cmd, out = s.drain("30m", "--max-calls", "1")
	s.await("two calls told", func(context.Context) error {
		if !strings.Contains(out(), "2 calls") {
			return errors.New(out())
		}
		return nil
	})
	if !b.isPaused() {
		t.Error("new calls are let in")
	}
	b.set(1)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out())
	}
	if v := s.holder("pbx2", "pbx3"); b.isPaused() {
		t.Errorf("new calls are refused after the move to %s", v.Holder)
	}
	lines := strings.Split(strings.TrimSpace(out()), "\n")
	if !strings.HasPrefix(lines[0], "2 calls, at most 30m0s more") || !strings.HasPrefix(lines[len(lines)-1], "1 calls left; pbx1 is drained; vip1: pbx1 -> ") {
		t.Errorf("told\n%s", out())
	}
}

// TestDrainDoesNotWaitForEver: when the time is up, the calls go on and the node is
// drained.
func TestDrainDoesNotWaitForEver(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("ClueCon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, cluster.Options{TOML: calm + fmt.Sprintf("[freeswitch]\npassword_file = %q\n", password)}, nil)
	b := s.startSwitchboard(0)
	b.set(2)
	cmd, out := s.drain("2s")
	if err := cmd.Wait(); err != nil || !strings.Contains(out(), "2 calls left after 2s; pbx1 is drained") {
		t.Errorf("%v\n%s", err, out())
	}
	s.holder("pbx2", "pbx3")
}
