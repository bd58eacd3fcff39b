package scale

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/bench/page"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// held is what a process holds.
type held struct {
	goroutines, descriptors, threads int
	mb, heapMB                       float64
}

// BenchmarkChurn: ten minutes of moves, killed PBXes, and agents that are stopped, killed
// or reloaded. pbx1's agent lives through all of it. From the end of the first minute to
// the end of the last it must not grow.
func BenchmarkChurn(b *testing.B) {
	c := start(b, cluster.Options{VIPs: 4, TOML: "[timing]\nhold_down = \"0s\"\n[control]\nlisten = \"127.0.0.1:9480\"\n"})
	r := rand.New(rand.NewPCG(1, 1))
	header := []string{"minute", "at", "load", "faults", "goroutines", "descriptors", "threads", "rss_mb", "heap_mb"}
	var rows [][]string
	var first, last held
	faults := map[string]int{}
	n := 0
	for minute := time.Minute; minute <= *churn; minute += time.Minute {
		for end := lab.Now() + time.Minute; lab.Now() < end; {
			name := disturb(b, c, r)
			faults[name]++
			n++
			await(b, "rest after "+name, func(ctx context.Context) error { return atRest(ctx, c) })
		}
		last = keeps(b, c, 0)
		if minute == time.Minute {
			first = last
		}
		rows = append(rows, []string{fmt.Sprint(int(minute.Minutes())), stamp(), load(b), fmt.Sprint(n), fmt.Sprint(last.goroutines), fmt.Sprint(last.descriptors),
			fmt.Sprint(last.threads), fmt.Sprintf("%.1f", last.mb), fmt.Sprintf("%.2f", last.heapMB)})
		fmt.Printf("  minute %2d: %3d faults, %+v\n", int(minute.Minutes()), n, last)
	}
	fmt.Printf("  %v\n", faults)
	// A few connections come and go. A leak of one per fault would be hundreds.
	if last.goroutines > first.goroutines+10 || last.descriptors > first.descriptors+10 || last.threads > first.threads+5 || last.mb > first.mb+5 || last.heapMB > first.heapMB+5 {
		b.Errorf("after %d faults %+v, after the first minute %+v", n, last, first)
	}
	row := func(what string, h held) []string {
		return []string{what, fmt.Sprintf("%.1f MB", h.mb), fmt.Sprintf("%.1f MB", h.heapMB), fmt.Sprint(h.goroutines), fmt.Sprint(h.descriptors), fmt.Sprint(h.threads)}
	}
	publish(b, "scale-churn", header, rows, page.Table([]string{"pbx1's agent", "RSS", "live heap", "goroutines", "descriptors", "threads"},
		[][]string{row("after the first minute", first), row(fmt.Sprintf("after %v and %d faults", *churn, n), last)}))
	b.ReportMetric(float64(n), "faults")
	b.ReportMetric(0, "ns/op")
}

// disturb does one thing that happens to clusters. It never ends pbx1's agent.
func disturb(b *testing.B, c *cluster.Cluster, r *rand.Rand) string {
	b.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	i, v := r.IntN(3), r.IntN(len(c.VIPs))
	other := 1 + r.IntN(2)
	switch r.IntN(5) {
	case 0, 1:
		// An error is fine: the VIP may already be there, or be on its way.
		_, _ = c.Client(0).Do(ctx, control.Command{Kind: control.Move, VIP: cluster.VIPName(v), Node: c.Node(i).Name})
		return "move"
	case 2:
		c.PBX(i).Kill()
		must(b, c.StartPBX(i))
		return "PBX killed"
	case 3:
		if r.IntN(2) == 0 {
			c.Agent(other).Kill()
		} else {
			must(b, c.Agent(other).Signal(syscall.SIGTERM))
			must(b, c.Agent(other).Wait(ctx))
		}
		must(b, c.StartAgent(other))
		return "agent restarted"
	}
	for i := range c.Nodes() {
		must(b, c.Agent(i).Signal(syscall.SIGHUP))
	}
	return "reload"
}

// keeps reads what an agent holds, from the kernel and from its metrics.
func keeps(b *testing.B, c *cluster.Cluster, i int) held {
	b.Helper()
	pid := c.Agent(i).Pid
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(b, err)
	m := metrics(b, c.Node(i))
	return held{goroutines: int(m["go_goroutines"]), descriptors: len(fds), threads: statusOf(b, pid, "Threads"),
		mb: float64(statusOf(b, pid, "VmRSS")) / 1024, heapMB: m["go_memstats_heap_alloc_bytes"] / (1 << 20)}
}

// metrics reads an agent's metrics from inside its host.
func metrics(b *testing.B, h *lab.Host) map[string]float64 {
	b.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = h.Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}}
	answer, err := client.Get("http://127.0.0.1:9480/metrics")
	must(b, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(b, err)
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if name, value, is := strings.Cut(strings.TrimSpace(line), " "); is && name != "#" {
			if all[name], err = strconv.ParseFloat(value, 64); err != nil {
				b.Fatalf("metric %q: %v", line, err)
			}
		}
	}
	return all
}
