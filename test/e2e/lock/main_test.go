// Package lock runs commands under locks on three real agents. It judges from outside, by
// the kernel's file locks, that two commands never run at once.
package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/lock", &binary)) }

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

// lease is the default, so that the measured times are those that an operator gets.
const lease = time.Second

type site struct {
	*cluster.Cluster
	t   *testing.T
	dir string
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	c, err := cluster.Start(cluster.Options{Binary: binary, VIPs: 1, TOML: "[timing]\nhold_down = \"0s\"\n", Agent: func(p lab.Spec) lab.Spec {
		// The state directory is apart from the runtime directory, which does not survive
		// a reboot.
		p.Args = append(p.Args, "--state-dir", filepath.Join(s.dir, "state-"+p.Name))
		return p
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Cluster = c
	t.Cleanup(func() {
		if t.Failed() {
			for i := range s.Nodes() {
				lines := strings.Split(strings.TrimSpace(s.Agent(i).Output()), "\n")
				t.Logf("%s:\n%s", s.Node(i).Name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	for i := range s.Nodes() {
		s.must(c.WaitHeld(ctx, i))
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) await(what string, good func() error) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(lab.WaitFor(ctx, what, good))
}

// client is one `sipalive lock` on a node.
type client struct {
	s    *site
	node int
	cmd  *exec.Cmd
	out  strings.Builder
	done chan struct{}
}

// lock starts a client. It needs no namespace, since it talks to its node's agent through
// a socket.
func (s *site) lock(node int, args ...string) *client {
	s.t.Helper()
	c := &client{s: s, node: node, done: make(chan struct{})}
	c.cmd = exec.Command(binary, append([]string{"lock", "--run-dir", s.RunDir(node)}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	// Do not wait for a process that still holds the pipe after the end.
	c.cmd.WaitDelay = time.Second
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.must(c.cmd.Start())
	go func() { _ = c.cmd.Wait(); close(c.done) }()
	s.t.Cleanup(func() { c.kill(); <-c.done })
	return c
}

// kill ends the client with SIGKILL, and nothing else.
func (c *client) kill() { c.signal(syscall.SIGKILL) }

func (c *client) signal(sig syscall.Signal) {
	select {
	case <-c.done:
	default:
		_ = c.cmd.Process.Signal(sig)
	}
}

// code waits for the client's end and returns its exit code.
func (c *client) code() int {
	c.s.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.s.t.Fatalf("lock on node %d does not end; it said %q", c.node, c.out.String())
	}
	return c.cmd.ProcessState.ExitCode()
}

// critical returns a command that must never run twice at a time. It holds a file lock,
// which the kernel releases when the last of its processes is dead, and fails with 99 if
// another one holds that lock. It records which node entered under which epoch.
func (s *site) critical(then string) []string {
	return []string{"--", "flock", "-n", "-E", "99", s.path("critical"), "sh", "-c",
		fmt.Sprintf(`echo "$SIPALIVE_EPOCH $SIPALIVE_NODE" >> %s; %s`, s.path("entered"), then)}
}

// entered returns who has entered, in order: epoch and node.
func (s *site) entered() (all []string) {
	text, err := os.ReadFile(s.path("entered"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// risen asserts that no epoch was used twice or after a higher one.
func (s *site) risen() {
	s.t.Helper()
	last := uint64(0)
	for _, l := range s.entered() {
		var e uint64
		var node string
		if _, err := fmt.Sscan(l, &e, &node); err != nil {
			s.t.Fatalf("entered: %q: %v", l, err)
		}
		if e <= last {
			s.t.Errorf("%s entered under epoch %d after %d", node, e, last)
		}
		last = e
	}
}

// freed waits until no command is in the critical section, and returns when that was.
func (s *site) freed() time.Time {
	s.t.Helper()
	var st unix.Stat_t
	s.must(unix.Stat(s.path("critical"), &st))
	// Look at /proc/locks instead of trying the lock: a try could get in the way of the
	// next command.
	held := fmt.Sprintf(":%d 0 EOF", st.Ino)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		s.must(err)
		if !strings.Contains(string(locks), held) {
			return time.Now()
		}
	}
	s.t.Fatal("the command was never killed")
	return time.Time{}
}

// waitEntered waits for the n-th command to enter, and returns its node.
func (s *site) waitEntered(n int) (node int) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d commands", n), func() error {
		if got := len(s.entered()); got < n {
			return fmt.Errorf("%d so far", got)
		}
		return nil
	})
	_, name, _ := strings.Cut(s.entered()[n-1], " ")
	return s.Index(name)
}

// reboot kills the agent and these clients of a node, and removes what does not survive a
// boot.
func (s *site) reboot(node int, clients ...*client) {
	s.t.Helper()
	s.Agent(node).Kill()
	for _, c := range clients {
		c.kill()
		<-c.done
	}
	s.must(os.RemoveAll(s.RunDir(node)))
}

func (s *site) back(node int) {
	s.t.Helper()
	s.must(s.StartAgent(node))
	s.await("the agent", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		st, err := s.Client(node).Status(ctx)
		if err == nil && !st.Quorum {
			err = errors.New("no quorum")
		}
		return err
	})
}
