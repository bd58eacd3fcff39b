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

// What the unit gives the agent alone, an action must not keep: a score that the
// OOM killer spares, memory to lock without limit, realtime limits. These belong
// to a process, not to a thread, so they cannot be shed before the fork as the
// rest is (thread.go); shed after it they would race with what the program does
// first. So the agent's own binary runs in between: it sheds them and becomes the
// program. It is found as /proc/self/exe, which an upgrade does not replace.
// That costs a few milliseconds, and only where there is something to shed.
//
// So does a realtime policy, though a thread's own and easily reset by the fork
// (SCHED_FLAG_RESET_ON_FORK): the fork waits for the child's exec, a garbage
// collection waits for the fork, spinning at realtime priority on every core, and
// a plain child then comes to its exec when the kernel's reserve for plain
// processes lets it: the agent was deaf for 0.25 to 0.95 s (seen, Linux 6.18, Go
// 1.26). The child keeps the policy until it executes.
//
// So does root's own power: a thread of the agent that gave up its capabilities
// for a fork could not map memory any more where all of it is locked (mlockall),
// and take the agent down (seen).

const (
	becomeName = "sipalive-action"      // argv[0] of what is to become an action; the path and its argv follow
	bareName   = "sipalive-action-bare" // the same, without any capability though it is root's
	becomeFD   = 3                      // where it says why it could not

	// plainLockedMemory is what systemd and Linux 5.16 give a plain service.
	plainLockedMemory = 8 << 20
)

// BecomeAction makes this process the action that its arguments name, if the
// runner started it for that; otherwise it returns. The agent's main calls it
// before anything else.
func BecomeAction() {
	if len(os.Args) < 3 || os.Args[0] != becomeName && os.Args[0] != bareName {
		mayBecome.Store(true)
		return
	}
	unix.CloseOnExec(becomeFD)
	runtime.LockOSThread() // the one that executes
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

// mayBecome says that this process's main calls BecomeAction, so that its binary
// can be run to become an action.
var mayBecome atomic.Bool

// dropCapabilities takes every capability from the calling thread, and from what it
// executes even as uid 0: exec gives that the whole bounding set back, but with
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

// favoured tells whether the calling thread, or its process, has anything that an
// action must not keep.
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

// spared tells whether the OOM killer takes others first.
func spared(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && strings.HasPrefix(string(text), "-")
}

// prioritized tells whether attr gives more of the processor than a plain process has.
func prioritized(attr *unix.SchedAttr) bool {
	realtime := attr.Policy == unix.SCHED_FIFO || attr.Policy == unix.SCHED_RR || attr.Policy == unix.SCHED_DEADLINE
	return realtime || attr.Nice < 0
}

// shedFavours takes from the calling thread and its process what favoured finds. A limit on
// realtime that was lowered for good (no CAP_SYS_RESOURCE) stays at that: it
// means nothing to a program that may not become realtime.
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
	// A nice value that a realtime policy only hides comes back: nobody may take
	// less without CAP_SYS_NICE. The kernel returns it as 20 - nice.
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

// refusal is the other end of becomeFD. A nil one never refused anything.
type refusal struct {
	path        string
	read, write *os.File
}

// becoming has cmd start by way of BecomeAction.
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

// started gives up the child's end, and ours where there is no child.
func (f *refusal) started(err error) {
	if f == nil {
		return
	}
	f.write.Close()
	if err != nil {
		f.read.Close()
	}
}

// err is why the program was not run; nil where it was. Call it once, after the
// child has ended.
func (f *refusal) err() error {
	if f == nil {
		return nil
	}
	defer f.read.Close()
	text, _ := io.ReadAll(f.read) // to the end: nobody else ever had the other one
	if len(text) == 0 {
		return nil
	}
	if errno, err := strconv.Atoi(string(text)); err == nil {
		return &os.PathError{Op: "exec", Path: f.path, Err: syscall.Errno(errno)}
	}
	return errors.New(string(text))
}
