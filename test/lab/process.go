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
	Name string   // name of its output file; default the program's base name
	Path string   // the program, looked up in PATH unless it has a slash
	Args []string // without the program's own name
	Env  []string // added to this process's environment
	Dir  string   // default: the lab's data directory
}

// By returns a Spec that runs the same program through another command, e.g. chrt. The
// command gets the program and its arguments as its last arguments.
func (s Spec) By(command ...string) Spec {
	s.Args = append(append(slices.Clone(command[1:]), s.Path), s.Args...)
	s.Path = command[0]
	return s
}

// Process is a program running on a host. It leads its own process group.
type Process struct {
	Pid  int
	Host *Host
	Log  string // file with its standard output and error

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended

	mu   sync.Mutex // held to signal and to reap: until it is reaped, no other process can get the pid
	over bool
	err  error
}

// Start starts a program inside the host's namespace. Close kills it. If this process
// dies, however that happens, the kernel kills it.
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

// logPath returns a new file name for each start: name.log, name.2.log, and so on. The
// caller holds the lab's lock.
func (l *Lab) logPath(name string) string {
	l.logs[name]++
	if n := l.logs[name]; n > 1 {
		name = fmt.Sprintf("%s.%d", name, n)
	}
	return filepath.Join(l.dataDir, name+".log")
}

// reap waits for the process to end without reaping it, and then reaps it under the lock.
// So while Signal holds the lock, the pid cannot pass to another process between check
// and signal.
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

// Signal sends a signal to the whole process group. It returns os.ErrProcessDone if the
// group's leader has ended.
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

// Kill ends the process group with SIGKILL and waits until its leader has ended. Killing
// an ended process is no error.
func (p *Process) Kill() {
	p.kill()
	<-p.done
}

func (p *Process) kill() {
	_ = p.Signal(syscall.SIGKILL) // fails only if the process has ended
}

// Stop freezes the process group (SIGSTOP). It keeps its sockets and addresses, and does
// nothing.
func (p *Process) Stop() error { return p.Signal(syscall.SIGSTOP) }

// Cont resumes a stopped process group (SIGCONT).
func (p *Process) Cont() error { return p.Signal(syscall.SIGCONT) }

// Terminate sends SIGTERM and waits for the process to end. If ctx ends first, Terminate
// kills it and returns an error. Otherwise it returns Wait's result.
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

// Wait waits until the process ends or ctx ends. nil means exit status 0; for any other
// end of the process the error is an *exec.ExitError.
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

// Run starts a program, waits for it to end and returns its output. If ctx ends first,
// Run kills the program.
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
