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

// killed reports whether a process was ended by SIGKILL, which only tests send.
func killed(err error) bool {
	exit, is := errors.AsType[*exec.ExitError](err)
	return is && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// inOrder takes the exit status of an agent that `sipalive stop` ended, 10 for
// the unit's sake, as well as 0.
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

// cli asks a node's agent by a command, as its administrator would.
func (s *site) cli(t *testing.T, node int, args ...string) command {
	t.Helper()
	return execute(t, exec.Command(binary, append(args, "--run-dir", s.RunDir(node))...))
}

// done is cli for what has to succeed.
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

// execute runs a command to its end, which has to come.
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
	_ = cmd.Wait() // the exit code says it
	return command{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
