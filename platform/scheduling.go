package platform

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

var policyNames = map[uint32]string{
	unix.SCHED_NORMAL: "other", unix.SCHED_BATCH: "batch", unix.SCHED_IDLE: "idle",
	unix.SCHED_FIFO: "fifo", unix.SCHED_RR: "rr", unix.SCHED_DEADLINE: "deadline",
}

// Scheduling returns this process's scheduling policy and, for a realtime one, its
// priority (sched(7)): "rr 95", "other". Threads may differ, because the unit's
// CPUSchedulingResetOnFork demotes all threads that the Go runtime makes. Any of them may
// run the loop, so the weakest counts.
func Scheduling() (string, error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return "", fmt.Errorf("list this process's threads: %w", err)
	}
	weakest, name := uint32(0), ""
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue // the thread has ended meanwhile
		}
		if err != nil {
			return "", fmt.Errorf("ask for the scheduling policy of thread %d: %w", tid, err)
		}
		if name == "" || attr.Priority < weakest {
			weakest, name = attr.Priority, policyName(attr)
		}
	}
	return name, nil
}

func policyName(attr *unix.SchedAttr) string {
	name, known := policyNames[attr.Policy]
	if !known {
		name = fmt.Sprintf("policy %d", attr.Policy)
	}
	if attr.Priority > 0 {
		name += fmt.Sprintf(" %d", attr.Priority)
	}
	return name
}
