package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sipalive/test/lab"
)

// BenchmarkIdle is what an agent costs that has nothing to do: 3 nodes, 2 VIPs,
// default timing, 30 s, nobody asking.
func BenchmarkIdle(b *testing.B) {
	s := start(b, "")
	time.Sleep(2 * time.Second) // the announcements of the start
	type cost struct {
		cpu time.Duration
		rss int
	}
	before := make([]time.Duration, len(s.Nodes()))
	for i := range before {
		before[i] = cpuTime(b, s.Agent(i).Pid)
	}
	at := lab.Now()
	time.Sleep(30 * time.Second)
	took := lab.Now() - at
	var worst cost
	for i, h := range s.Nodes() {
		c := cost{cpuTime(b, s.Agent(i).Pid) - before[i], resident(b, s.Agent(i).Pid)}
		fmt.Printf("  idle agent of %s: %.2f %% of a core, %.1f MB RSS\n", h.Name, percent(c.cpu, took), megabytes(c.rss))
		worst.cpu, worst.rss = max(worst.cpu, c.cpu), max(worst.rss, c.rss)
	}
	fmt.Printf("  %-28s worst %.2f %% of a core, %.1f MB   target <= 1 %%, <= 25 MB   %.0f s, load %s\n", "idle agent, 3 nodes, 2 VIPs",
		percent(worst.cpu, took), megabytes(worst.rss), took.Seconds(), load())
	b.ReportMetric(percent(worst.cpu, took), "%core")
	b.ReportMetric(megabytes(worst.rss), "MB-RSS")
	b.ReportMetric(0, "ns/op")
}

func percent(cpu, of time.Duration) float64 { return 100 * float64(cpu) / float64(of) }

func megabytes(kB int) float64 { return float64(kB) / 1024 }

// cpuTime is a process's utime and stime: fields 14 and 15 of /proc/PID/stat,
// in ticks of 10 ms (USER_HZ is 100 on every Linux that Go runs on).
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// resident is VmRSS of /proc/PID/status, in kB.
func resident(b *testing.B, pid int) int {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, is := strings.CutPrefix(line, "VmRSS:"); is {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("/proc/%d/status has no VmRSS", pid)
	return 0
}
