package fence

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// memoryGroup makes a control group that may use so many bytes, and removes it
// when those in it have ended.
func memoryGroup(t *testing.T, limit int) (dir, events string) {
	t.Helper()
	name := fmt.Sprintf("sipa-oom-%d", os.Getpid())
	dir, file, events := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes", "memory.oom_control"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2
		dir, file, events = filepath.Join("/sys/fs/cgroup", name), "memory.max", "memory.events"
		must(t, os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0o644))
	}
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if err := os.Remove(dir); err == nil {
				return
			} else if time.Now().After(end) {
				t.Errorf("remove %s: %v", dir, err)
				return
			}
		}
	})
	must(t, os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, limit), 0o644))
	return dir, filepath.Join(dir, events)
}

// oomKills counts whom the kernel has killed in a group for want of memory.
func oomKills(t *testing.T, events string) int { t.Helper(); return counted(t, events, "oom_kill") }

// The kernel kills the holder's agent for want of memory, in a group that it
// shares with somebody greedy and where its score does not spare it. Nobody
// starts it again.
func TestOOMKilledAgent(t *testing.T) {
	dir, events := memoryGroup(t, 64<<20)
	s := start(t, "")
	s.inTime(func() (miss error) {
		before := oomKills(t, events)
		agent := s.Agent(0)
		must(t, os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", agent.Pid), []byte("1000"), 0))
		must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, agent.Pid), 0))
		_, err := s.Phone().Start(lab.Spec{Name: "greedy", Path: "sh",
			Args: []string{"-c", "echo $$ > " + filepath.Join(dir, "cgroup.procs") + "; exec tail -c 1000000000 /dev/zero"}})
		must(t, err)
		ctx, cancel := cluster.Deadline(patience)
		defer cancel()
		err = agent.Wait(ctx)
		fault := lab.Now()
		exit, is := errors.AsType[*exec.ExitError](err)
		if !is || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the agent ended with %v, want SIGKILL", err)
		}
		if oomKills(t, events) == before {
			t.Fatal("the kernel killed nobody for want of memory")
		}
		miss = s.taken(fault)
		gone := s.unbound(0, fault)
		t.Logf("the kernel removed the address %v after the kill", (gone - fault).Round(time.Millisecond))
		miss = errors.Join(miss, s.oneHolder(fault))
		must(t, s.StartAgent(0))
		s.failback(0)
		return miss
	})
}
