package scale

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sipalive/test/bench/page"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// collection matches one line of GODEBUG=gctrace=1.
var collection = regexp.MustCompile(`^gc \d+ @[\d.]+s \d+%: ([\d.]+)\+([\d.]+)\+([\d.]+) ms clock,.* (\d+)->(\d+)->(\d+) MB`)

const gcFor = 4 * time.Minute

// BenchmarkGC measures how often an idle agent collects garbage, and how long it stops
// for that, for several settings of Go's collector.
func BenchmarkGC(b *testing.B) {
	settings := []string{"GOGC=100", "GOGC=200", "GOGC=400", "GOGC=off GOMEMLIMIT=16MiB"}
	c := start(b, cluster.Options{Nodes: []string{"pbx1", "pbx2", "pbx3", "pbx4"}, Agent: func(s lab.Spec) lab.Spec {
		i := int(s.Name[len(s.Name)-1] - '1')
		s.Env = append(append(s.Env, "GODEBUG=gctrace=1"), strings.Fields(settings[i])...)
		return s
	}})
	time.Sleep(10 * time.Second)
	var before []int
	var rss []float64
	for i := range c.Nodes() {
		before = append(before, len(logOf(b, c, i)))
	}
	began := lab.Now()
	time.Sleep(gcFor)
	took := lab.Now() - began
	header := []string{"setting", "at", "load", "seconds", "collections", "collections_per_hour", "pause_median_us", "pause_most_us", "pause_us_per_hour", "heap_mb", "rss_mb"}
	var rows, table [][]string
	for i := range c.Nodes() {
		rss = append(rss, float64(statusOf(b, c.Agent(i).Pid, "VmRSS"))/1024)
		pauses, heap := collections(logOf(b, c, i)[before[i]:])
		perHour := float64(len(pauses)) * float64(time.Hour) / float64(took)
		median, most, sum := time.Duration(0), time.Duration(0), time.Duration(0)
		if len(pauses) > 0 {
			slices.Sort(pauses)
			median, most = pauses[len(pauses)/2], pauses[len(pauses)-1]
			for _, p := range pauses {
				sum += p
			}
		}
		sum = time.Duration(float64(sum) * float64(time.Hour) / float64(took))
		rows = append(rows, []string{settings[i], stamp(), load(b), fmt.Sprintf("%.0f", took.Seconds()), fmt.Sprint(len(pauses)), fmt.Sprintf("%.0f", perHour), fmt.Sprint(median.Microseconds()),
			fmt.Sprint(most.Microseconds()), fmt.Sprint(sum.Microseconds()), fmt.Sprint(heap), fmt.Sprintf("%.1f", rss[i])})
		table = append(table, []string{settings[i], fmt.Sprintf("%.0f", perHour), fmt.Sprintf("%d µs", median.Microseconds()), fmt.Sprintf("%d µs", most.Microseconds()),
			fmt.Sprintf("%.1f ms", float64(sum.Microseconds())/1000), fmt.Sprintf("%.1f MB", rss[i])})
	}
	b.ReportMetric(0, "ns/op")
	publish(b, "scale-gc", header, rows, page.Table([]string{"setting", "collections an hour", "pause, median", "longest", "pauses an hour, all", "RSS"}, table))
}

func logOf(b *testing.B, c *cluster.Cluster, i int) string {
	b.Helper()
	text, err := os.ReadFile(c.Agent(i).Log)
	must(b, err)
	return string(text)
}

// collections returns how long each collection stopped the world, and the heap size at
// the start of the last one, in MB.
func collections(log string) (pauses []time.Duration, heap int) {
	for line := range strings.Lines(log) {
		m := collection.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		before, _ := strconv.ParseFloat(m[1], 64)
		after, _ := strconv.ParseFloat(m[3], 64)
		heap, _ = strconv.Atoi(m[4])
		pauses = append(pauses, time.Duration((before+after)*float64(time.Millisecond)))
	}
	return pauses, heap
}
