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

// greedy takes all the memory of a group, and ends when the kernel ends somebody
// there.
func (s *site) greedy(dir string, score int) *lab.Process {
	s.t.Helper()
	p, err := s.Phone().Start(lab.Spec{Name: "greedy", Path: "sh", Args: []string{"-c", fmt.Sprintf(
		"echo %d >/proc/$$/oom_score_adj && echo $$ >%s/cgroup.procs && exec tail -c 1000000000 /dev/zero", score, dir)}})
	must(s.t, err)
	return p
}

// score sets what the kernel adds to a process's own when it looks for a victim.
func score(agent *lab.Process, score int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", agent.Pid), fmt.Append(nil, score), 0)
}

// scores gives the agent the unit's, and returns the ordinary one. Only who has
// CAP_SYS_RESOURCE may lower a score; without it both are raised by as much: to the
// kernel the difference counts.
func (s *site) scores() (ordinary int) {
	s.t.Helper()
	units, err := shipped.OOMScore()
	must(s.t, err)
	err = score(s.Agent(0), units)
	if errors.Is(err, fs.ErrPermission) {
		ordinary = -units
		err = score(s.Agent(0), 0)
	}
	must(s.t, err)
	s.t.Logf("the agent's score is %d, an ordinary one %d", units+ordinary, ordinary)
	return ordinary
}

// spared: with the unit's score an agent outlives whoever is greedy beside it, and
// holds what it held. A machine that stood still for longer says nothing of that.
func (s *site) spared(dir, events string) {
	s.t.Helper()
	ordinary := s.scores()
	for range 5 {
		before, killed, begun := s.status(1).VIPs[0], counted(s.t, events, "oom_kill"), lab.Now()
		greedy := s.greedy(dir, ordinary)
		ctx, cancel := cluster.Deadline(patience)
		err := greedy.Wait(ctx)
		cancel()
		if !slain(err) || counted(s.t, events, "oom_kill") <= killed {
			s.t.Fatalf("who was greedy ended with %v, want the kernel's SIGKILL for want of memory", err)
		}
		time.Sleep(2 * lease) // longer than what it could hold without renewing
		select {
		case <-s.Agent(0).Done():
			s.t.Fatal("the kernel ended the agent too")
		default:
		}
		r := s.phones[0].Report(begun, lab.Now()-100*time.Millisecond)
		s.t.Logf("somebody greedy beside the agent: %v", r)
		s.oneHolder(begun)
		if r.Stall > lease/4 {
			s.t.Log("the machine stood still: once more")
			s.failback(0)
			continue
		}
		if after := s.status(1).VIPs[0]; after.Holder != "pbx1" || after.Epoch != before.Epoch || r.By["pbx1"] != r.Answered {
			s.t.Errorf("%s under epoch %d, was %s under %d; answers by %v", after.Holder, after.Epoch, before.Holder, before.Epoch, r.By)
		}
		return
	}
	s.t.Fatal("the machine stands still too often to tell anything")
}

// slain: ended by SIGKILL.
func slain(err error) bool {
	exit, is := errors.AsType[*exec.ExitError](err)
	return is && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// The holder's agent in a group that it shares with somebody greedy. With the
// unit's score it is spared; with one that does not spare it the kernel kills it
// for want of memory, and nobody starts it again.
func TestOutOfMemory(t *testing.T) {
	dir, events := memoryGroup(t, 64<<20)
	s := start(t, "")
	agent := s.Agent(0)
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, agent.Pid), 0))
	s.spared(dir, events)
	must(t, score(agent, 1000))
	killed := counted(t, events, "oom_kill")
	s.greedy(dir, 0)
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	err := agent.Wait(ctx)
	fault := lab.Now()
	if !slain(err) {
		t.Fatalf("the agent ended with %v, want SIGKILL", err)
	}
	if counted(t, events, "oom_kill") <= killed {
		t.Fatal("the kernel killed nobody for want of memory")
	}
	s.taken(fault)
	gone := s.unbound(0, fault)
	t.Logf("the kernel removed the address %v after the kill", (gone - fault).Round(time.Millisecond))
	s.oneHolder(fault)
	must(t, s.StartAgent(0))
	s.failback(0)
}
