package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec is a program to start on a host.
type Spec struct {
	Name string   // of its output file; default the program's base name
	Path string   // the program, looked up in PATH unless it has a slash
	Args []string // without the program's own name
	Env  []string // added to this process's environment
	Dir  string   // default: the lab's data directory
}

// By is the same started by way of a command, which is given the program and its
// arguments: chrt, say.
func (s Spec) By(command ...string) Spec {
	s.Args = append(append(slices.Clone(command[1:]), s.Path), s.Args...)
	s.Path = command[0]
	return s
}

// Process is a program on a host, the leader of a process group of its own.
type Process struct {
	Pid  int
	Host *Host
	Log  string // file with its standard output and error

	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended

	mu   sync.Mutex // held while signalling and while reaping: the pid is its own until reaped
	over bool
	err  error
}

// Start starts a program inside the host's namespace. It is killed when the
// lab closes, and by the kernel when this process dies in whatever way.
func (h *Host) Start(spec Spec) (*Process, error) {
	if spec.Name == "" {
		spec.Name = filepath.Base(spec.Path)
	}
	if spec.Dir == "" {
		spec.Dir = h.lab.dataDir
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.closed {
		return nil, fmt.Errorf("start %s on %s: the lab is closed", spec.Name, h.Name)
	}
	out, err := os.Create(h.lab.logPath(h.Name + "-" + spec.Name))
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", spec.Name, h.Name, err)
	}
	defer out.Close() // the child has its own descriptor
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = spec.Dir, out, out
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := h.ns.onStarter(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", spec.Name, h.Name, err)
	}
	p := &Process{Pid: cmd.Process.Pid, Host: h, Log: out.Name(), cmd: cmd, done: make(chan struct{})}
	h.lab.processes = append(h.lab.processes, p)
	go p.reap()
	return p, nil
}

// logPath gives each start its own file: name.log, name.2.log, ... The lab's lock is held.
func (l *Lab) logPath(name string) string {
	l.logs[name]++
	if n := l.logs[name]; n > 1 {
		name = fmt.Sprintf("%s.%d", name, n)
	}
	return filepath.Join(l.dataDir, name+".log")
}

// reap waits for the end without taking it, so that under the lock the process
// id cannot become another's between a look and a signal.
func (p *Process) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	p.err = p.cmd.Wait()
	p.over = true
	p.mu.Unlock()
	close(p.done)
}

// Signal sends a signal to the whole process group. os.ErrProcessDone says that
// its leader has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return os.ErrProcessDone
	}
	if err := unix.Kill(-p.Pid, sig); err != nil {
		return fmt.Errorf("signal %v to %s on %s (pid %d): %w", sig, p.cmd.Path, p.Host.Name, p.Pid, err)
	}
	return nil
}

// Kill ends the process group with SIGKILL and waits for its leader's end.
// Killing what has ended is no error.
func (p *Process) Kill() {
	p.kill()
	<-p.done
}

func (p *Process) kill() {
	_ = p.Signal(syscall.SIGKILL) // fails only on what has ended
}

// Stop freezes the process group (SIGSTOP): it holds its sockets and addresses
// and does nothing.
func (p *Process) Stop() error { return p.Signal(syscall.SIGSTOP) }

// Cont lets a stopped process group go on (SIGCONT).
func (p *Process) Cont() error { return p.Signal(syscall.SIGCONT) }

// Terminate sends SIGTERM and waits for the end, at most until ctx ends; then it
// kills. The result is Wait's.
func (p *Process) Terminate(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && err != os.ErrProcessDone {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("terminate %s on %s: %w, killed", p.cmd.Path, p.Host.Name, ctx.Err())
	}
	return p.Wait(ctx)
}

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end, at most until ctx ends. nil means exit status 0; a
// *exec.ExitError says how it ended otherwise.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %s on %s: %w", p.cmd.Path, p.Host.Name, ctx.Err())
	}
}

// Output returns what the process has written so far.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return "output: " + err.Error()
	}
	return string(b)
}

// LastWords returns the last lines of Output, for the report of a failed test.
func (p *Process) LastWords() string {
	const shown = 20
	lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
	return strings.Join(lines[max(0, len(lines)-shown):], "\n")
}

// Run starts a program, waits for it and returns what it wrote. When ctx ends
// first the program is killed.
func (h *Host) Run(ctx context.Context, path string, args ...string) (string, error) {
	p, err := h.Start(Spec{Path: path, Args: args})
	if err != nil {
		return "", err
	}
	err = p.Wait(ctx)
	p.Kill()
	out := p.Output()
	if err != nil {
		last := bytes.TrimSpace([]byte(out))
		err = fmt.Errorf("run %s on %s: %w: %s", path, h.Name, err, last[bytes.LastIndexByte(last, '\n')+1:])
	}
	return out, err
}
