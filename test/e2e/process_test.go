package e2e

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const sigterm = syscall.SIGTERM

// killed reports whether a process was ended by SIGKILL. Only tests send that.
func killed(err error) bool {
	exit, is := errors.AsType[*exec.ExitError](err)
	return is && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// inOrder accepts exit status 10 as well as 0: an agent that `sipalive stop` ended exits
// with 10, for the systemd unit.
func inOrder(err error) error {
	if exit, is := errors.AsType[*exec.ExitError](err); is && exit.ExitCode() == 10 {
		return nil
	}
	return err
}

// command is one run of the binary.
type command struct {
	out, err string
	code     int
}

// cli runs a command against a node's agent, as its administrator would.
func (s *site) cli(t *testing.T, node int, args ...string) command {
	t.Helper()
	return execute(t, exec.Command(binary, append(args, "--run-dir", s.RunDir(node))...))
}

// done is cli for commands that must succeed.
func (s *site) done(t *testing.T, node int, args ...string) string {
	t.Helper()
	c := s.cli(t, node, args...)
	if c.code != 0 {
		t.Fatalf("sipalive %s: exit %d: %s%s", strings.Join(args, " "), c.code, c.out, c.err)
	}
	return c.out
}

// within runs the binary in a node's namespace.
func (s *site) within(t *testing.T, node int, args ...string) (c command) {
	t.Helper()
	s.must(t, s.Node(node).Do(func() error {
		cmd := exec.Command(binary, args...)
		c = execute(t, cmd)
		return nil
	}))
	return c
}

// execute runs a command and waits for its end. It kills a command that does not end.
func execute(t *testing.T, cmd *exec.Cmd) command {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Errorf("%v: %v", cmd.Args, err)
		return command{code: -1}
	}
	late := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the exit code tells it
	return command{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
