package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// memoryGroup is a control group with a memory limit and no swap.
type memoryGroup struct{ dir, events string }

// newMemoryGroup makes a group, and removes it when its processes have ended.
func newMemoryGroup(t *testing.T, limit int64) memoryGroup {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup/memory", fmt.Sprintf("sipa-oom-%d-%d", os.Getpid(), lab.Now()))
	most, swap, events := "memory.limit_in_bytes", "memory.swappiness", "memory.oom_control"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2
		dir = filepath.Join("/sys/fs/cgroup", filepath.Base(dir))
		most, swap, events = "memory.max", "memory.swap.max", "memory.events"
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
	must(t, os.WriteFile(filepath.Join(dir, most), fmt.Append(nil, limit), 0))
	if err := os.WriteFile(filepath.Join(dir, swap), []byte("0"), 0); !errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		must(t, err)
	}
	return memoryGroup{dir, filepath.Join(dir, events)}
}

// kills counts the processes in the group that the kernel has killed for lack of memory.
func (g memoryGroup) kills(t *testing.T) int { t.Helper(); return counted(t, g.events, "oom_kill") }

// greedy starts a process that joins the group with this score and takes all its memory,
// until the kernel kills a process there.
func (s *site) greedy(g memoryGroup, score int) *lab.Process {
	s.t.Helper()
	p, err := s.Phone().Start(lab.Spec{Name: "greedy", Path: "sh", Args: []string{"-c", fmt.Sprintf(
		"echo %d >/proc/$$/oom_score_adj && echo $$ >%s/cgroup.procs && exec dd if=/dev/zero of=/dev/null bs=1G count=1", score, g.dir)}})
	must(s.t, err)
	return p
}

// setScore sets an agent's oom_score_adj, which the kernel adds when it looks for a
// victim.
func setScore(agent *lab.Process, score int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", agent.Pid), fmt.Append(nil, score), 0)
}

// score gives the agent the score of its unit, and returns an ordinary process's score.
// Only a process with CAP_SYS_RESOURCE may lower a score. Without it both scores are
// higher by the same amount: the kernel compares only the difference.
func (s *site) score() (ordinary int) {
	s.t.Helper()
	units, err := shipped.OOMScore()
	must(s.t, err)
	err = setScore(s.Agent(0), units)
	if errors.Is(err, fs.ErrPermission) {
		ordinary = -units
		err = setScore(s.Agent(0), 0)
	}
	must(s.t, err)
	s.t.Logf("the agent's score is %d, an ordinary one %d", units+ordinary, ordinary)
	return ordinary
}

// slain reports whether a process was ended by SIGKILL.
func slain(err error) bool {
	exit, is := errors.AsType[*exec.ExitError](err)
	return is && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// TestOutOfMemory puts the holder's agent into a group with a greedy process. The kernel
// kills the process with the most pages in memory, after adding the score times a
// thousandth of the group's limit, in whole pages (mm/oom_kill.c, oom_badness, Linux
// 6.18).
//
// The limit is below what the agent had in memory before it joined, which does not count
// in the group. So a greedy process there stays smaller than the agent, and the score
// alone decides. With the unit's score the agent counts as far smaller.
func TestOutOfMemory(t *testing.T) {
	s := start(t, "")
	group, ordinary := s.confined()
	s.spared(group, ordinary)
	s.inTime(func() (miss error) {
		if group.dir == "" {
			group, ordinary = s.confined() // another agent, in a group of its own
		}
		miss = s.notSpared(group, ordinary)
		group = memoryGroup{}
		return miss
	})
}

// confined puts the holder's agent into such a group, and returns an ordinary process's
// score.
func (s *site) confined() (group memoryGroup, ordinary int) {
	s.t.Helper()
	agent := s.Agent(0)
	used, err := agent.Usage()
	must(s.t, err)
	thousand := int64(1000 * os.Getpagesize())
	limit := (used.Resident/thousand - 1) * thousand // less by 4 to 8 MB; a thousandth of a limit of 3999 pages is 3
	group = newMemoryGroup(s.t, limit)
	must(s.t, os.WriteFile(filepath.Join(group.dir, "cgroup.procs"), fmt.Append(nil, agent.Pid), 0))
	s.t.Logf("the agent has %.1f MB in memory, the group room for %.1f", float64(used.Resident)/1e6, float64(limit)/1e6)
	return group, s.score()
}

// spared: an agent with the unit's score survives beside a greedy process, and keeps what
// it held. If the machine stood still, that may cost a lease, so there is more than one
// try.
func (s *site) spared(group memoryGroup, ordinary int) {
	s.t.Helper()
	for range 3 {
		before, killed, begun := s.status(1).VIPs[0], group.kills(s.t), lab.Now()
		ctx, cancel := cluster.Deadline(patience)
		err := s.greedy(group, ordinary).Wait(ctx)
		cancel()
		n := group.kills(s.t) - killed
		time.Sleep(2 * lease) // longer than it could hold without renewing
		select {
		case <-s.Agent(0).Done():
			s.t.Fatalf("with the unit's score the agent ended; %d killed for want of memory", n)
		default:
		}
		if !slain(err) || n != 1 {
			s.t.Fatalf("who was greedy ended with %v, %d killed for want of memory; want SIGKILL, 1", err, n)
		}
		r := s.phones[0].Report(begun, lab.Now()-100*time.Millisecond)
		s.t.Logf("with the unit's score, the one beside it killed: %v", r)
		s.oneHolder(begun)
		after := s.status(1).VIPs[0]
		if after.Holder == before.Holder && after.Epoch == before.Epoch && r.By["pbx1"] == r.Answered {
			return
		}
		s.t.Logf("%s under epoch %d, was %s under %d; answers by %v: once more", after.Holder, after.Epoch, before.Holder, before.Epoch, r.By)
		s.failback(0)
	}
	s.t.Error("the agent lives, and loses its lease each time")
}

// notSpared: with an ordinary score the kernel kills the agent. Nobody starts it again.
func (s *site) notSpared(group memoryGroup, ordinary int) (miss error) {
	s.t.Helper()
	agent, killed := s.Agent(0), group.kills(s.t)
	must(s.t, setScore(agent, ordinary))
	greedy := s.greedy(group, ordinary)
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	err := agent.Wait(ctx)
	fault := lab.Now()
	if n := group.kills(s.t) - killed; !slain(err) || n == 0 {
		s.t.Fatalf("the agent ended with %v, %d killed for want of memory; want SIGKILL, and itself", err, n)
	}
	miss = s.taken(fault)
	gone := s.unbound(0, fault)
	s.t.Logf("without the score: the kernel removed the address %v after it killed the agent", (gone - fault).Round(time.Millisecond))
	miss = errors.Join(miss, s.oneHolder(fault))
	greedy.Kill()
	must(s.t, s.StartAgent(0))
	s.failback(0)
	return miss
}
