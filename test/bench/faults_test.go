package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// BenchmarkPageFaults counts the page faults for which an agent must wait when its
// machine is short of memory. Before each planned move there and back, the kernel
// reclaims every page of the agent's group that it can get. It runs once with locked
// memory, as the unit gives it, and once without the right to lock memory.
func BenchmarkPageFaults(b *testing.B) {
	for _, locked := range []bool{true, false} {
		b.Run(fmt.Sprintf("locked=%t", locked), func(b *testing.B) { pageFaults(b, locked) })
	}
}

func pageFaults(b *testing.B, locked bool) {
	group := newMemoryGroup(b)
	copied := uncached(b)
	s := startWith(b, cluster.Options{Binary: binary, TOML: calm, Agent: func(spec lab.Spec) lab.Spec {
		if spec.Name != "agent-pbx1" {
			return spec
		}
		args := append([]string{copied}, spec.Args...)
		if !locked {
			args = append([]string{"setpriv", "--bounding-set", "-ipc_lock"}, args...)
		}
		spec.Path = "sh"
		spec.Args = append([]string{"-c", "echo $$ > " + filepath.Join(group.dir, "cgroup.procs") + ` && exec "$@"`, "sh"}, args...)
		return spec
	}})
	st, err := s.Client(0).Status(context.Background())
	s.must(err)
	if st.MemoryLocked != locked {
		b.Fatalf("memory locked is %t, want %t", st.MemoryLocked, locked)
	}
	var major, minor []int
	for range runs {
		group.reclaim(b)
		maj, min := faults(b, s.Agent(0).Pid)
		for _, to := range []string{"pbx3", "pbx1"} {
			_, err := s.Client(1).Do(context.Background(), control.Command{Kind: control.Move, VIP: "vip1", Node: to})
			s.must(err)
			s.await("vip1 at "+to, s.atRest)
		}
		maj2, min2 := faults(b, s.Agent(0).Pid)
		major, minor = append(major, maj2-maj), append(minor, min2-min)
	}
	slices.Sort(major)
	slices.Sort(minor)
	fmt.Printf("  two moves, short of memory, locked %-5t  median %d major page faults, worst %d; minor %d, %d   %d runs, %.1f MB RSS\n", locked,
		major[runs/2], major[runs-1], minor[runs/2], minor[runs-1], runs, megabytes(resident(b, s.Agent(0).Pid)))
	b.ReportMetric(float64(major[runs/2]), "major-faults")
	b.ReportMetric(float64(minor[runs/2]), "minor-faults")
	b.ReportMetric(0, "ns/op")
}

// faults returns fields 12 (major) and 10 (minor) of /proc/PID/stat, for all living
// threads.
func faults(b *testing.B, pid int) (major, minor int) {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	minor, err = strconv.Atoi(fields[7])
	if err == nil {
		major, err = strconv.Atoi(fields[9])
	}
	if err != nil {
		b.Fatal(err)
	}
	return major, minor
}

// uncached copies the binary to a file whose pages are not in memory yet, so that they
// are charged to the group of the process that runs it.
func uncached(b *testing.B) string {
	b.Helper()
	text, err := os.ReadFile(binary)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "sipalive")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
	return path
}

// memoryGroup is a control group whose pages can be reclaimed.
type memoryGroup struct{ dir, file, word string }

func newMemoryGroup(b *testing.B) memoryGroup {
	b.Helper()
	name := fmt.Sprintf("sipa-faults-%d", os.Getpid())
	g := memoryGroup{filepath.Join("/sys/fs/cgroup/memory", name), "memory.force_empty", "0"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2; memory.reclaim exists since Linux 5.19
		g = memoryGroup{filepath.Join("/sys/fs/cgroup", name), "memory.reclaim", "1G"}
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for end := time.Now().Add(patience); os.Remove(g.dir) != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				b.Errorf("%s is still in use", g.dir)
				return
			}
		}
	})
	return g
}

// reclaim makes the kernel reclaim all pages that it can. Getting only some of them is no
// failure.
func (g memoryGroup) reclaim(b *testing.B) {
	b.Helper()
	err := os.WriteFile(filepath.Join(g.dir, g.file), []byte(g.word), 0o644)
	if err != nil && !strings.Contains(err.Error(), unix.EAGAIN.Error()) && !strings.Contains(err.Error(), unix.EBUSY.Error()) {
		b.Fatal(err)
	}
}
