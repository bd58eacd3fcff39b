package hooks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// The unit gives the agent things that an action must not keep: an OOM score that
// protects it, unlimited locked memory, realtime limits. They belong to a process, not to
// a thread. So they cannot be dropped before the fork like the rest (thread.go), and
// dropping them after it would race with the program's first steps. So the agent's own
// binary runs in between: it drops them and becomes the program. It is found as
// /proc/self/exe, which an upgrade does not replace. That costs a few milliseconds, and
// only if there is something to drop.
//
// A realtime policy is dropped there too, although it is the thread's own and the fork
// could reset it (SCHED_FLAG_RESET_ON_FORK). The fork waits for the child's exec, and a
// garbage collection waits for the fork, spinning at realtime priority on every core. A
// child without realtime priority then reaches its exec only when the kernel's reserve
// for plain processes lets it run: the agent was deaf for 0.25 to 0.95 s (seen, Linux
// 6.18, Go 1.26). So the child keeps the policy until it executes.
//
// Root's own power is dropped there too. A thread of the agent that gave up its
// capabilities for a fork could no longer map memory if all memory is locked (mlockall),
// and the agent crashed (seen).

const (
	becomeName = "sipalive-action"      // argv[0] of a process that becomes an action; the program's path and argv follow
	bareName   = "sipalive-action-bare" // the same, for a program that gets no capability although it runs as root
	becomeFD   = 3                      // where that process reports why it could not become the action

	// plainLockedMemory is what systemd, and Linux since 5.16, give a plain service.
	plainLockedMemory = 8 << 20
)

// BecomeAction makes this process the action in its arguments if the runner started it
// for that; otherwise it returns. The agent's main calls it before anything else.
func BecomeAction() {
	if len(os.Args) < 3 || os.Args[0] != becomeName && os.Args[0] != bareName {
		mayBecome.Store(true)
		return
	}
	unix.CloseOnExec(becomeFD)
	runtime.LockOSThread() // this thread executes the program
	err := shedFavours()
	if err == nil && os.Args[0] == bareName {
		err = dropCapabilities()
	}
	if err == nil {
		err = unix.Exec(os.Args[1], os.Args[2:], os.Environ())
	}
	text := err.Error()
	if errno, is := errors.AsType[unix.Errno](err); is && err == error(errno) {
		text = strconv.Itoa(int(errno))
	}
	_, _ = unix.Write(becomeFD, []byte(text))
	os.Exit(127)
}

// mayBecome says that this process's main calls BecomeAction, so that its binary can be
// run to become an action.
var mayBecome atomic.Bool

// dropCapabilities takes every capability from the calling thread and from the program it
// executes, even as uid 0. Exec would give uid 0 the whole bounding set back, but with
// NoNewPrivs no more than the thread had (capabilities(7), cap_bprm_creds_from_file).
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot set NoNewPrivs: %w", err)
	}
	hdr, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return fmt.Errorf("cannot drop capabilities: %w (does the unit's SystemCallFilter allow capset?)", err)
	}
	return nil
}

// favoured reports whether the calling thread or its process has anything that an action
// must not keep.
func favoured() bool {
	if spared(oomScorePath) {
		return true
	}
	if attr, err := unix.SchedGetAttr(0, 0); err == nil && prioritized(attr) {
		return true
	}
	var locked, realtime, priority unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &locked)
	_ = unix.Getrlimit(unix.RLIMIT_RTTIME, &realtime)
	_ = unix.Getrlimit(unix.RLIMIT_RTPRIO, &priority)
	return locked.Max > plainLockedMemory || realtime.Cur != unix.RLIM_INFINITY || priority.Max > 0
}

const oomScorePath = "/proc/self/oom_score_adj"

// spared reports whether the OOM killer takes other processes first.
func spared(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && strings.HasPrefix(string(text), "-")
}

// prioritized reports whether attr gives more CPU than a plain process gets.
func prioritized(attr *unix.SchedAttr) bool {
	realtime := attr.Policy == unix.SCHED_FIFO || attr.Policy == unix.SCHED_RR || attr.Policy == unix.SCHED_DEADLINE
	return realtime || attr.Nice < 0
}

// shedFavours drops what favoured looks for, from the calling thread and its process. A
// realtime limit that cannot be raised again (no CAP_SYS_RESOURCE) stays lowered: that
// does not matter to a program that may not become realtime.
func shedFavours() error {
	if err := shedOOMScore(oomScorePath); err != nil {
		return fmt.Errorf("cannot give up the OOM score: %w", err)
	}
	if err := shedPriority(); err != nil {
		return fmt.Errorf("cannot give up the scheduling policy: %w (does the unit's SystemCallFilter allow sched_setattr?)", err)
	}
	for _, limit := range []struct {
		which int
		set   func(*unix.Rlimit)
	}{
		{unix.RLIMIT_MEMLOCK, func(l *unix.Rlimit) { l.Cur, l.Max = min(l.Cur, plainLockedMemory), min(l.Max, plainLockedMemory) }},
		{unix.RLIMIT_RTTIME, func(l *unix.Rlimit) { l.Cur = l.Max }},
		{unix.RLIMIT_RTPRIO, func(l *unix.Rlimit) { l.Cur, l.Max = 0, 0 }},
	} {
		var l unix.Rlimit
		if err := unix.Getrlimit(limit.which, &l); err != nil {
			return fmt.Errorf("cannot read a limit: %w", err)
		}
		limit.set(&l)
		if err := unix.Setrlimit(limit.which, &l); err != nil {
			return fmt.Errorf("cannot lower a limit: %w", err)
		}
	}
	return nil
}

func shedPriority() error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || !prioritized(attr) {
		return err
	}
	// A nice value hidden by a realtime policy comes back: nobody may lower it without
	// CAP_SYS_NICE. The kernel returns it as 20 - nice.
	hidden, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(max(0, 20-hidden))}, 0)
}

func shedOOMScore(path string) error {
	if !spared(path) {
		return nil
	}
	return os.WriteFile(path, []byte("0"), 0)
}

// refusal is the reading end of becomeFD. A nil refusal never refused anything.
type refusal struct {
	path        string
	read, write *os.File
}

// becoming makes cmd start through BecomeAction.
func becoming(cmd *exec.Cmd, bare bool) (*refusal, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	f := &refusal{path: cmd.Path, read: r, write: w}
	name := becomeName
	if bare {
		name = bareName
	}
	cmd.Args = append([]string{name, cmd.Path}, cmd.Args...)
	cmd.Path = "/proc/self/exe"
	cmd.ExtraFiles = []*os.File{w} // the first one is descriptor 3
	return f, nil
}

// started closes the child's end, and ours too if there is no child.
func (f *refusal) started(err error) {
	if f == nil {
		return
	}
	f.write.Close()
	if err != nil {
		f.read.Close()
	}
}

// err returns why the program was not run, nil if it was. Call it once, after the child
// has ended.
func (f *refusal) err() error {
	if f == nil {
		return nil
	}
	defer f.read.Close()
	text, _ := io.ReadAll(f.read) // up to EOF: nobody else ever had the other end
	if len(text) == 0 {
		return nil
	}
	if errno, err := strconv.Atoi(string(text)); err == nil {
		return &os.PathError{Op: "exec", Path: f.path, Err: syscall.Errno(errno)}
	}
	return errors.New(string(text))
}
