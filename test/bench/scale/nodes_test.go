package scale

import (
	"fmt"
	"testing"

	"sipalive/test/bench/page"
	"sipalive/test/cluster"
)

// voters is the number of voters, however many nodes the cluster has.
const voters = 5

// BenchmarkNodes: real agents at rest, with four VIPs; the first five nodes are voters.
// All share two cores. So the CPU time per agent is what counts, and latency means
// nothing.
func BenchmarkNodes(b *testing.B) {
	header := []string{"nodes", "at", "load", "cpu_median_percent", "cpu_most_percent", "frames_median_per_s", "frames_most_per_s", "bytes_median_per_s", "bytes_most_per_s", "rss_most_mb"}
	var rows, table [][]string
	for _, nodes := range []int{3, 8, 16, 32} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			c := start(b, manyNodes(nodes))
			all := costs(b, c)
			m, w := middle(all), most(all)
			rows = append(rows, []string{fmt.Sprint(nodes), stamp(), load(b), fmt.Sprintf("%.3f", m.cpu), fmt.Sprintf("%.3f", w.cpu), fmt.Sprintf("%.1f", m.frames), fmt.Sprintf("%.1f", w.frames),
				fmt.Sprintf("%.0f", m.bytes), fmt.Sprintf("%.0f", w.bytes), fmt.Sprintf("%.1f", w.mb)})
			table = append(table, []string{fmt.Sprint(nodes), fmt.Sprintf("**%.2f %%**", m.cpu), fmt.Sprintf("%.2f %%", w.cpu), fmt.Sprintf("%.3f %%", m.cpu/float64(nodes-1)),
				fmt.Sprintf("%.0f", m.frames), fmt.Sprintf("%.1f kB", m.bytes/1000), fmt.Sprintf("%.1f MB", w.mb)})
			b.ReportMetric(m.cpu, "%core")
			b.ReportMetric(m.frames, "frames/s")
			b.ReportMetric(0, "ns/op")
		})
	}
	publish(b, "scale-nodes", header, rows, page.Table([]string{"agents", "**CPU of one**, median", "costliest", "median per peer", "frames/s sent by one, SIP included", "bytes/s", "RSS"}, table))
}

func manyNodes(nodes int) cluster.Options {
	o := cluster.Options{VIPs: 4, Node: func(i int) string {
		if i > voters {
			return "voter = false"
		}
		return ""
	}}
	for i := range nodes {
		o.Nodes = append(o.Nodes, fmt.Sprintf("pbx%d", i+1))
	}
	o.Home = func(i int) int { return i % min(nodes, 4) }
	return o
}
