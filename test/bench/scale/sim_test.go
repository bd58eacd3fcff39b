package scale

import (
	"fmt"
	"testing"
	"time"

	"sipalive/test/bench/page"
	"sipalive/test/sim"
)

// BenchmarkSimulatedNodes: 16 to 1,000 of the real machines in virtual time, with five
// voters and 16 VIPs. Three of the nodes are measured, with the real codec. A
// configuration allows 64 nodes; the larger sizes show with what the cost grows.
func BenchmarkSimulatedNodes(b *testing.B) {
	header := []string{"nodes", "at", "load", "role", "packets_per_s", "bytes_per_s", "machine_percent", "codec_percent"}
	var rows, table [][]string
	for _, nodes := range []int{16, 64, 250, 1000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			w := sim.Crowd(nodes, 16)
			if !w.Settle(10*time.Second, 1500*time.Millisecond) {
				b.Fatal("not everything is held")
			}
			measured := []struct {
				role string
				*sim.Node
			}{{"voter", w.Nodes[0]}, {"holder", w.Nodes[5]}, {"neither", w.Nodes[nodes-1]}}
			for _, m := range measured {
				m.Meter = sim.NewMeter()
			}
			const seconds = 2
			w.Run(seconds * time.Second)
			if len(w.Judge.Violations) > 0 {
				b.Fatal(w.Judge.Violations)
			}
			row := []string{fmt.Sprint(nodes)}
			for _, m := range measured {
				must(b, m.Meter.Failed)
				packets, bytes := float64(m.Meter.Packets)/seconds, float64(m.Meter.Bytes)/seconds
				machine, codec := 100*m.Meter.Machine.Total().Seconds()/seconds, 100*m.Meter.Codec.Total().Seconds()/seconds
				rows = append(rows, []string{fmt.Sprint(nodes), stamp(), load(b), m.role, fmt.Sprintf("%.0f", packets), fmt.Sprintf("%.0f", bytes), fmt.Sprintf("%.3f", machine), fmt.Sprintf("%.3f", codec)})
				if m.role == "neither" {
					row = append(row, fmt.Sprintf("%.0f", packets), fmt.Sprintf("%.0f kB", bytes/1000), fmt.Sprintf("%.0f", bytes/packets))
				}
				if m.role != "neither" || nodes > 16 {
					row = append(row, fmt.Sprintf("%.2f %%", machine+codec))
				} else {
					row = append(row, "–")
				}
			}
			table = append(table, []string{row[0], row[3], row[4], row[5], row[1], row[2], row[6]})
			b.ReportMetric(0, "ns/op")
		})
		publish(b, "scale-simulated", header, rows, page.Table([]string{"nodes", "packets/s sent by one", "bytes/s", "bytes each", "CPU of a voter", "of a holder", "of neither"}, table))
	}
}
