package fence

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sipalive/test/bench/page"
)

var out = flag.String("fence.out", "../..", "the project whose docs/benchmarks.md is written; empty: none")

// cost is what one packet takes of a core, in each round.
type cost struct {
	packet string
	rounds []time.Duration
}

func (c cost) median() time.Duration {
	sorted := slices.Sorted(slices.Values(c.rounds))
	return sorted[len(sorted)/2]
}

// BenchmarkPacket measures what the fence costs for one incoming packet, as the kernel
// itself measures it (BPF_PROG_TEST_RUN: the mean of all repetitions, in whole
// nanoseconds). The first line is a program that does nothing: the cost of measuring,
// which is part of every other line. The kinds take turns, so that a core that is slow
// for a while is slow for all.
func BenchmarkPacket(b *testing.B) {
	const rounds, repetitions = 15, 500_000
	f := loadOnly(b, vip, vip6)
	must(b, f.Set(vip6, 1<<62))
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: emptyProgram()})
	must(b, err)
	defer empty.Close()
	in := f.programs[ethernet][ingress].Program
	voice := make([]byte, 160)
	kinds := []struct {
		name  string
		p     *ebpf.Program
		frame []byte
	}{
		{"a program that does nothing", empty, etherFrame(kindIPv4, ipv4Packet(peer, node, 160))},
		{"IPv4 of another", in, etherFrame(kindIPv4, ipv4Packet(peer, node, 160))},
		{"IPv6 of another", in, etherFrame(kindIPv6, ipv6Packet(17, peer6, node6, voice))},
		{"ARP of another", in, etherFrame(kindARP, arpPacket(1, peer, node))},
		{"neither", in, etherFrame(0x88cc, voice)},
		{"IPv6 of a VIP held", in, etherFrame(kindIPv6, ipv6Packet(17, peer6, vip6, voice))},
		{"IPv4 of a VIP not held, dropped", in, etherFrame(kindIPv4, ipv4Packet(peer, vip, 160))},
	}
	costs := make([]cost, len(kinds))
	for range rounds {
		for i, k := range kinds {
			_, took, err := k.p.Benchmark(k.frame, repetitions, nil)
			must(b, err)
			costs[i].packet, costs[i].rounds = k.name, append(costs[i].rounds, took)
		}
	}
	for _, c := range costs {
		b.Run(c.packet, func(b *testing.B) {
			b.ReportMetric(float64(c.median().Nanoseconds()), "ns/packet")
			b.ReportMetric(0, "ns/op")
		})
	}
	publish(b, costs)
}

// publish writes the figures to their CSV, one line per round, and their table to the
// page.
func publish(b *testing.B, costs []cost) {
	b.Helper()
	if *out == "" {
		return
	}
	raw := make([][]string, 1+len(costs[0].rounds))
	var rows [][]string
	for _, c := range costs {
		raw[0] = append(raw[0], c.packet)
		for i, d := range c.rounds {
			raw[1+i] = append(raw[1+i], fmt.Sprint(d.Nanoseconds()))
		}
		rows = append(rows, []string{c.packet, fmt.Sprint(c.median().Nanoseconds()),
			fmt.Sprint(slices.Min(c.rounds).Nanoseconds()), fmt.Sprint(slices.Max(c.rounds).Nanoseconds())})
	}
	var text bytes.Buffer
	must(b, csv.NewWriter(&text).WriteAll(raw))
	must(b, os.WriteFile(filepath.Join(*out, "docs", "benchmarks", "fence.csv"), text.Bytes(), 0o644))
	must(b, page.FillFile(filepath.Join(*out, "docs", "benchmarks.md"), "fence",
		page.Table([]string{"a packet that comes in", "ns, median", "best round", "worst"}, rows)))
}
