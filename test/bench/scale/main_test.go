package scale

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sipalive/test/bench/page"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

var (
	out   = flag.String("scale.out", "../../..", "the project whose docs are written; empty: none")
	runs  = flag.Int("scale.runs", 5, "takeovers of each number of VIPs")
	churn = flag.Duration("scale.churn", 10*time.Minute, "how long the churn lasts")
	rest  = flag.Duration("scale.rest", 15*time.Second, "for how long the cost at rest is measured")
)

const patience = 60 * time.Second // for what must come

var binary string

func TestMain(m *testing.M) {
	os.Exit(shipped.Main(m, "scale", &binary, "-trimpath", "-ldflags", "-s -w"))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// start starts a cluster and waits until it is at rest.
func start(tb testing.TB, o cluster.Options) *cluster.Cluster {
	tb.Helper()
	o.Binary = binary
	c, err := cluster.Start(o)
	must(tb, err)
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	await(tb, "the cluster at rest", func(ctx context.Context) error { return atRest(ctx, c) })
	return c
}

// await asks until good returns nil. It asks slowly, so that asking does not disturb the
// measurement.
func await(tb testing.TB, what string, good func(context.Context) error) {
	tb.Helper()
	for end := lab.Now() + patience; ; {
		err := good(context.Background())
		if err == nil {
			return
		}
		if lab.Now() > end {
			tb.Fatalf("wait for %s: not within %v: %v", what, patience, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// atRest returns nil if every node sees every node fit and every VIP held and verified.
func atRest(ctx context.Context, c *cluster.Cluster) error {
	for i := range c.Nodes() {
		st, err := c.Client(i).Status(ctx)
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if !n.Alive || !n.Fit || n.HeldDown {
				return fmt.Errorf("%s says %s: alive %v, fit %v: %s", st.Node, n.Name, n.Alive, n.Fit, n.Why)
			}
		}
		for _, v := range st.VIPs {
			if v.State != "held" || !v.Verified {
				return fmt.Errorf("%s says %s is %s at %q, verified %v: %s", st.Node, v.Name, v.State, v.Holder, v.Verified, v.Reason)
			}
		}
	}
	return nil
}

// cost is what a node uses at rest.
type cost struct {
	cpu    float64 // percent of a core
	frames float64 // sent by its eth0, per second
	bytes  float64
	mb     float64 // resident
}

// costs measures every node at rest.
func costs(tb testing.TB, c *cluster.Cluster) (all []cost) {
	tb.Helper()
	time.Sleep(5 * time.Second) // until the announcements of the start are over
	type reading struct {
		cpu     time.Duration
		traffic lab.Traffic
	}
	read := func(i int, h *lab.Host) (r reading) {
		var err error
		r.cpu = cpuTime(tb, c.Agent(i).Pid)
		r.traffic, err = h.Traffic()
		must(tb, err)
		return r
	}
	var before []reading
	began := lab.Now()
	for i, h := range c.Nodes() {
		before = append(before, read(i, h))
	}
	time.Sleep(*rest)
	took := (lab.Now() - began).Seconds()
	for i, h := range c.Nodes() {
		now := read(i, h)
		all = append(all, cost{
			cpu:    100 * (now.cpu - before[i].cpu).Seconds() / took,
			frames: float64(now.traffic.Frames-before[i].traffic.Frames) / took,
			bytes:  float64(now.traffic.Bytes-before[i].traffic.Bytes) / took,
			mb:     float64(statusOf(tb, c.Agent(i).Pid, "VmRSS")) / 1024,
		})
	}
	return all
}

// most returns the highest cost in each respect.
func most(all []cost) (worst cost) {
	for _, c := range all {
		worst = cost{max(worst.cpu, c.cpu), max(worst.frames, c.frames), max(worst.bytes, c.bytes), max(worst.mb, c.mb)}
	}
	return worst
}

// middle returns the median in each respect.
func middle(all []cost) cost {
	of := func(f func(cost) float64) float64 {
		var values []float64
		for _, c := range all {
			values = append(values, f(c))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return cost{of(func(c cost) float64 { return c.cpu }), of(func(c cost) float64 { return c.frames }),
		of(func(c cost) float64 { return c.bytes }), of(func(c cost) float64 { return c.mb })}
}

// cpuTime returns how long a process's threads have run, by the scheduler's clock: the
// first field of /proc/PID/task/TID/schedstat, in ns.
func cpuTime(tb testing.TB, pid int) (sum time.Duration) {
	tb.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		tb.Fatalf("threads of %d: %v, %v", pid, threads, err)
	}
	for _, t := range threads {
		stat, err := os.ReadFile(t)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has just ended
		}
		must(tb, err)
		ran, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		must(tb, err)
		sum += time.Duration(ns)
	}
	return sum
}

// statusOf returns a number from /proc/PID/status. VmRSS is in kB.
func statusOf(tb testing.TB, pid int, key string) int {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(tb, err)
	for line := range strings.Lines(string(status)) {
		if value, is := strings.CutPrefix(line, key+":"); is {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			must(tb, err)
			return n
		}
	}
	tb.Fatalf("/proc/%d/status has no %s", pid, key)
	return 0
}

// load returns the machine's load average over the last minute.
func load(tb testing.TB) string {
	text, err := os.ReadFile("/proc/loadavg")
	must(tb, err)
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// publish writes figures to their CSV file, and their table to the page.
func publish(tb testing.TB, name string, header []string, rows [][]string, table string) {
	tb.Helper()
	fmt.Print(table)
	if *out == "" {
		return
	}
	f, err := os.Create(filepath.Join(*out, "docs", "benchmarks", name+".csv"))
	must(tb, err)
	w := csv.NewWriter(f)
	must(tb, w.WriteAll(append([][]string{header}, rows...)))
	must(tb, f.Close())
	must(tb, page.FillFile(filepath.Join(*out, "docs", "benchmarks.md"), name, table))
}

func stamp() string { return time.Now().UTC().Format(time.RFC3339) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
