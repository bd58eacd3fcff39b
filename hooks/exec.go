package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killGrace is how long a chain waits for a program that survives SIGKILL because it
	// is stuck in the kernel (a dead NFS server).
	killGrace = 2 * time.Second
	// pipeGrace is how long a pipe is drained after the last process of the group is
	// gone: only a process that left the group can still hold it.
	pipeGrace = 250 * time.Millisecond
)

// killGroup kills every process of the group that pid leads or led.
func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

// runExec runs one program in its own process group, with env as its whole environment, /
// as its directory and no stdin. At the end of ctx the whole group is killed. Processes
// that the program leaves in its group when it exits are killed too, and a note says so:
// a finished action must do nothing more. A daemon belongs to the service manager, or
// into its own session (setsid).
//
// The program must belong to somebody who could become its user anyway, see checkTrusted.
func runExec(ctx context.Context, timeout time.Duration, p program, as account, kill func(pid int)) result {
	argv := p.Argv
	if err := checkTrusted(argv[0], uint32(os.Geteuid()), as.uid); err != nil {
		return result{err: fmt.Errorf("exec %s: not run: %w", oneLine(argv[0]), err)}
	}
	out, err := startCaptured(p, as)
	if err != nil {
		return result{err: fmt.Errorf("exec %s: %s", oneLine(argv[0]), whyNotStarted(argv[0], err))}
	}
	pid := out.cmd.Process.Pid
	exited := make(chan struct{})
	go func() {
		waitUnreaped(pid)
		close(exited)
	}()
	killed := ""
	select {
	case <-exited:
	case <-ctx.Done():
		killed = whyEnded(ctx, "no end", timeout) + ", its process group was killed"
		kill(pid) // not reaped yet, so the number still belongs to this group
		select {
		case <-exited:
		case <-time.After(killGrace):
			go func() { <-exited; _ = out.cmd.Wait() }()
			return result{
				err:    fmt.Errorf("exec %s: %s but did not die within %s (stuck in the kernel)", oneLine(argv[0]), killed, killGrace),
				output: out.finish(0),
			}
		}
	}
	return out.reap(argv[0], pid, killed, kill)
}

// reap collects the exit status of a program that has exited, and kills the rest of its
// group.
func (o *captured) reap(path string, pid int, killed string, kill func(pid int)) result {
	err := o.cmd.Wait()
	var res result
	// A group's number stays in use while a process is in the group, and the kernel hands
	// out numbers in a circle. So whatever answers here was left behind by the program.
	if unix.Kill(-pid, 0) == nil {
		kill(pid)
		if killed == "" {
			res.note = "exec " + oneLine(path) + ": processes it left running were killed (use setsid or a service for a daemon)"
		}
	}
	res.output = o.finish(pipeGrace)
	if refused := o.refused.err(); refused != nil && killed == "" {
		res.err = fmt.Errorf("exec %s: %s", oneLine(path), whyNotStarted(path, refused))
		return res
	}
	switch {
	case killed != "":
		res.err = fmt.Errorf("exec %s: %s", oneLine(path), killed)
	case err != nil:
		res.err = fmt.Errorf("exec %s: %w", oneLine(path), err)
	}
	return res
}

// captured is a started program whose output is being read.
type captured struct {
	cmd     *exec.Cmd
	refused *refusal // why the program could not be run after all
	pipe    *os.File
	text    capture // belongs to the reading goroutine until read is closed
	read    chan struct{}
}

func startCaptured(p program, as account) (*captured, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Env, cmd.Dir = p.Env, "/"
	// A file, not an io.Writer: with a writer, Wait of os/exec waits for everybody who
	// holds the pipe.
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as.switchTo}
	refused, err := startUnprivileged(cmd, as)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	o := &captured{cmd: cmd, refused: refused, pipe: r, read: make(chan struct{})}
	go func() {
		defer close(o.read)
		drainOutput(&o.text, r)
	}()
	return o, nil
}

// A program that prints without end would keep its reader as busy as itself and delay
// heartbeats. So beyond outputFree bytes its output is read at 32 MB/s.
const (
	outputFree  = 1 << 20
	outputChunk = 64 << 10
	outputPause = 2 * time.Millisecond
)

// drainOutput reads to the end, so that the program never blocks for long on a full pipe.
func drainOutput(to io.Writer, from io.Reader) {
	buf := make([]byte, outputChunk)
	for total, sincePause := 0, 0; ; {
		n, err := from.Read(buf)
		_, _ = to.Write(buf[:n])
		if err != nil {
			return
		}
		total += n
		if sincePause += n; total > outputFree && sincePause >= outputChunk {
			time.Sleep(outputPause)
			sincePause = 0
		}
	}
}

// finish ends the reading and returns what was kept. If a process still holds the pipe,
// it waits for the grace time.
func (o *captured) finish(grace time.Duration) string {
	_ = o.pipe.SetReadDeadline(time.Now().Add(grace))
	<-o.read
	o.pipe.Close()
	return o.text.String()
}

// waitUnreaped returns when the child has exited and leaves it a zombie. So no other
// process or group can get its number before Wait.
func waitUnreaped(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

func whyNotStarted(path string, err error) string {
	if errors.Is(err, unix.EPERM) {
		return oneLine(err.Error()) + " (only sipalive-hooks.service can run it as another user)"
	}
	var perr *os.PathError
	if !errors.As(err, &perr) {
		return oneLine(err.Error())
	}
	hint := ""
	switch {
	case errors.Is(err, unix.ENOENT) && exists(path):
		hint = " (the interpreter in its first line is missing)"
	case errors.Is(err, unix.ENOENT):
		hint = " (is it installed on this node?)"
	case errors.Is(err, unix.EACCES):
		hint = " (executable for the agent's user?)"
	case errors.Is(err, unix.ENOEXEC):
		hint = " (a script needs a first line such as #!/bin/sh)"
	}
	return perr.Err.Error() + hint
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
