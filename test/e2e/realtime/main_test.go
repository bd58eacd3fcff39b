// Package realtime judges from outside what realtime hogs, as busy as a FreeSWITCH in
// trouble, do to the agents of a whole cluster on this machine.
//
// The judge itself has a higher realtime priority than everything that it watches. So it
// sees everything, and can always end it. The kernel ends the hogs too: by RLIMIT_CPU,
// and when this process ends.
package realtime

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sipalive/platform"
	"sipalive/test/shipped"
)

const (
	judgePriority = 97
	pbxPriority   = 90 // above the hogs: the tests judge the agents
	hogPriority   = 89 // that of FreeSWITCH's Debian unit
)

// binaryEnv names the variable with the path of sipalive as it is shipped, built before
// the judge gets its priority.
const binaryEnv = "SIPALIVE_TEST_BINARY"

var program = os.Getenv(binaryEnv)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if program == "" {
		if err := becomeJudge(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e/realtime:", err)
			return 1
		}
	}
	defer os.RemoveAll(filepath.Dir(program))
	if policy, err := platform.Scheduling(); err != nil || policy != fmt.Sprintf("rr %d", judgePriority) {
		fmt.Fprintf(os.Stderr, "e2e/realtime: the judge runs at %s, %v\n", policy, err)
		return 1
	}
	return m.Run()
}

// becomeJudge builds sipalive and executes this test again at the judge's priority. A
// program's first thread has the priority of the thread that called exec, and passes it
// on.
func becomeJudge() error {
	var err error
	if program, err = shipped.Build(); err != nil {
		return err
	}
	runtime.LockOSThread()
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: judgePriority}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("take realtime priority %d: %w (needs CAP_SYS_NICE, and the root cgroup where the kernel has RT_GROUP_SCHED)", judgePriority, err)
	}
	return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), binaryEnv+"="+program))
}
