package hooks

import (
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// startUnprivileged starts cmd without the agent's capabilities and without the other
// rights that only the agent gets from the unit. refused is nil unless the program is
// started by way of become.go.
//
// A child gets the capabilities of the forking thread, NoNewPrivileges or not (measured,
// Linux 6.18), and SysProcAttr can only add some. So the fork happens on a thread that
// has dropped them: os/exec forks on the caller's thread, and a goroutine that ends
// locked takes its thread with it, so no other goroutine ever runs there. The runtime,
// too, clones new threads from an untouched one while a goroutine is locked.
//
// Exec gives uid 0 the whole bounding set back. So a program that runs as root, but not
// because root was given by name, drops that set on its way, also in become.go. A program
// of another user loses all capabilities with the change of uid.
func startUnprivileged(cmd *exec.Cmd, as account) (refused *refusal, err error) {
	bare := as.uid == 0 && as.switchTo == nil && !as.keep
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := shedPrivileges()
		if err == nil && mayBecome.Load() && (bare || favoured()) {
			refused, err = becoming(cmd, bare)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	err = <-started
	refused.started(err)
	return refused, err
}

// shedPrivileges changes only the calling thread.
func shedPrivileges() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot clear ambient capabilities: %w", err)
	}
	if err := clearInheritable(); err != nil {
		return fmt.Errorf("cannot clear inheritable capabilities: %w (does the unit's SystemCallFilter allow capset?)", err)
	}
	return nil
}

// clearInheritable empties the inheritable set, which would come back through a binary
// with inheritable file capabilities. systemd fills it along with the ambient set.
func clearInheritable() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return err
	}
	if caps[0].Inheritable == 0 && caps[1].Inheritable == 0 {
		return nil
	}
	caps[0].Inheritable, caps[1].Inheritable = 0, 0
	return unix.Capset(&hdr, &caps[0])
}
