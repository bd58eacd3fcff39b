package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// BenchmarkIdle measures what an agent costs when it has nothing to do: 3 nodes, 2 VIPs,
// default timing, 30 s, without queries.
func BenchmarkIdle(b *testing.B) {
	s := start(b, "")
	worst := idle(b, s, "idle agent, 3 nodes, 2 VIPs", "target <= 1 %, <= 25 MB")
	if worst.percent > 1 || worst.mb > 25 {
		b.Errorf("an idle agent takes %.2f %% of a core and %.1f MB", worst.percent, worst.mb)
	}
}

// BenchmarkIdleFourTargets measures the same with four SIP listeners on every node, 28
// probes a second from each agent, and one VIP.
func BenchmarkIdleFourTargets(b *testing.B) {
	toml := ""
	for _, port := range fourPorts {
		toml += fmt.Sprintf("[[sip.target]]\nname = \"p%d\"\nuri = \"udp:%[1]d\"\n", port)
	}
	s := startWith(b, cluster.Options{Binary: binary, TOML: toml, VIPs: 1, PBX: func(h *lab.Host) (lab.Spec, bool) {
		for _, port := range fourPorts[1:] {
			if _, err := h.Start(demoPBX(h, port)); err != nil {
				b.Fatal(err)
			}
		}
		return demoPBX(h, fourPorts[0]), true
	}})
	idle(b, s, "3 nodes, 4 targets, 1 VIP", "(its probes alone: sipcheck)")
}

var fourPorts = []int{5060, 5070, 5080, 5090}

func demoPBX(h *lab.Host, port int) lab.Spec {
	return lab.Spec{Name: fmt.Sprintf("pbx-%s-%d", h.Name, port), Path: binary, Args: []string{"demo-pbx", h.Name, fmt.Sprintf("0.0.0.0:%d", port)}}
}

// taken is what an agent uses: percent of a core, and MB resident.
type taken struct{ percent, mb float64 }

// idle measures every agent for 30 s and returns the worst.
func idle(b *testing.B, s *site, what, target string) (worst taken) {
	time.Sleep(2 * time.Second) // until the announcements of the start are over
	before := make([]time.Duration, len(s.Nodes()))
	for i := range before {
		before[i] = cpuTime(b, s.Agent(i).Pid)
	}
	at := lab.Now()
	time.Sleep(30 * time.Second)
	took := lab.Now() - at
	for i, h := range s.Nodes() {
		c := taken{percent(cpuTime(b, s.Agent(i).Pid)-before[i], took), megabytes(resident(b, s.Agent(i).Pid))}
		fmt.Printf("  idle agent of %s: %.2f %% of a core, %.1f MB RSS\n", h.Name, c.percent, c.mb)
		worst.percent, worst.mb = max(worst.percent, c.percent), max(worst.mb, c.mb)
	}
	fmt.Printf("  %-28s worst %.2f %% of a core, %.1f MB   %s   %.0f s, load %s\n", what, worst.percent, worst.mb, target, took.Seconds(), load())
	b.ReportMetric(worst.percent, "%core")
	b.ReportMetric(worst.mb, "MB-RSS")
	b.ReportMetric(0, "ns/op")
	return worst
}

func percent(cpu, of time.Duration) float64 { return 100 * float64(cpu) / float64(of) }

func megabytes(kB int) float64 { return float64(kB) / 1024 }

// cpuTime returns how long a process's threads have run, by the scheduler's clock: the
// first field of /proc/PID/task/TID/schedstat, in ns. The times in /proc/PID/stat count
// ticks of 10 ms and may be estimates.
func cpuTime(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		b.Fatalf("threads of %d: %v, %v", pid, threads, err)
	}
	for _, t := range threads {
		stat, err := os.ReadFile(t)
		if err != nil {
			b.Fatal(err)
		}
		ran, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// resident returns VmRSS of /proc/PID/status, in kB.
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
