package bench

import (
	"bytes"
	"context"
	encoding "encoding/binary"
	"encoding/csv"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sipalive/control"
	"sipalive/test/bench/page"
	"sipalive/test/lab"
)

var out = flag.String("bench.out", "../..", "the project whose docs/benchmarks.md is written; empty: none")

// stages are the parts of a planned move as the network and the kernel's notices show
// them. Each is timed from the one before.
var stages = []string{
	"the successor's word that it is ready arrives at the holder",
	"the holder's kernel has deleted the address",
	"the holder's release leaves",
	"it arrives at the successor",
	"the successor's kernel has the address",
	"its first announcement leaves",
	"its first answer to a phone leaves",
}

// BenchmarkAnatomy shows where the time of one takeover goes: a planned move of vip1 from
// pbx1 to pbx3, seen from outside the agents.
func BenchmarkAnatomy(b *testing.B) {
	s := start(b, calm)
	s.observe()
	var moves [][]time.Duration
	unclear := 0
	for range attempts {
		if len(moves) == runs {
			break
		}
		s.rest()
		if took, seen := s.dissect(); seen {
			moves = append(moves, took)
		} else {
			unclear++
		}
	}
	fmt.Printf("  %d moves were not seen whole, or held up for more than %v\n", unclear, 4*maxStall)
	if len(moves) < runs {
		b.Fatalf("only %d of %d moves seen whole in %d attempts: the machine is too busy (load %s)", len(moves), runs, attempts, load())
	}
	b.ReportMetric(0, "ns/op")
	s.publish(moves, s.least(moves))
}

// dissect moves vip1 and returns how long each stage took. seen is false if a stage was
// not seen, or if a heartbeat was taken for it.
func (s *site) dissect() (took []time.Duration, seen bool) {
	s.b.Helper()
	old, next := watch(s, 0), watch(s, 2)
	_, err := s.Client(1).Do(context.Background(), control.Command{Kind: control.Move, VIP: "vip1", Node: "pbx3"})
	s.must(err)
	s.hears("pbx3", 0)
	o, n := old.end(), next.end()

	gone := first(o, addressGone, 0)
	ready := last(o, fromPeer, gone)
	left := first(o, toPeer, gone)
	came := first(n, fromPeer, left)
	bound := first(n, addressCame, came)
	announced := first(n, announcement, bound)
	answered := first(n, answer, bound)
	at := []time.Duration{ready, gone, left, came, bound, announced, answered}
	if slices.Contains(at, 0) || !slices.IsSorted(at) || answered-ready > maxStall*4 {
		return nil, false
	}
	for i := 1; i < len(at); i++ {
		took = append(took, at[i]-at[i-1])
	}
	return took, true
}

func first(all []sighting, what kind, after time.Duration) time.Duration {
	for _, x := range all {
		if x.what == what && x.at >= after && after >= 0 {
			return x.at
		}
	}
	return 0
}

func last(all []sighting, what kind, before time.Duration) (at time.Duration) {
	for _, x := range all {
		if x.what == what && x.at <= before {
			at = x.at
		}
	}
	return at
}

// least returns what the same costs without any program: two messages and the
// announcement on the network, the address deleted and added by netlink.
func (s *site) least(moves [][]time.Duration) time.Duration {
	s.b.Helper()
	wire := median(column(moves, 2))
	var del, add []time.Duration
	s.must(s.Node(1).Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("192.0.2.250/32")
		if err != nil {
			return err
		}
		for range 101 {
			began := lab.Now()
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
			added := lab.Now()
			if err := netlink.AddrDel(link, a); err != nil {
				return err
			}
			add, del = append(add, added-began), append(del, lab.Now()-added)
		}
		return nil
	}))
	fmt.Printf("  a message on the wire %v, an address deleted %v, added %v\n", wire, median(del), median(add))
	return 3*wire + median(del) + median(add)
}

func column(moves [][]time.Duration, i int) (all []time.Duration) {
	for _, m := range moves {
		all = append(all, m[i])
	}
	return all
}

func median(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// publish prints the table, and writes it and the raw figures to the pages.
func (s *site) publish(moves [][]time.Duration, least time.Duration) {
	s.b.Helper()
	us := func(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
	var rows [][]string
	for i, name := range stages[1:] {
		all := column(moves, i)
		rows = append(rows, []string{name, us(median(all)), us(slices.Max(all))})
	}
	span := func(from, to int) (all []time.Duration) {
		for _, m := range moves {
			sum := time.Duration(0)
			for _, d := range m[from:to] {
				sum += d
			}
			all = append(all, sum)
		}
		return all
	}
	unowned := span(1, 4)
	rows = append(rows, []string{"**nobody has the address**", "**" + us(median(unowned)) + "**", us(slices.Max(unowned))},
		[]string{"**ready to announced**", "**" + us(median(span(0, 5))) + "**", us(slices.Max(span(0, 5)))},
		[]string{"the same without a program between: two messages, delete, add, one frame", us(least), ""})
	table := page.Table([]string{"until", "median, µs", "worst, µs"}, rows)
	fmt.Print(table)
	s.b.ReportMetric(float64(median(span(0, 5)).Microseconds()), "µs-ready-to-announced")
	if *out == "" {
		return
	}
	var raw bytes.Buffer
	w := csv.NewWriter(&raw)
	s.must(w.Write(append([]string{"time", "load"}, stages[1:]...)))
	for _, m := range moves {
		row := []string{time.Now().UTC().Format(time.RFC3339), load()}
		for _, d := range m {
			row = append(row, us(d))
		}
		s.must(w.Write(row))
	}
	w.Flush()
	s.must(w.Error())
	s.must(os.WriteFile(filepath.Join(*out, "docs", "benchmarks", "anatomy.csv"), raw.Bytes(), 0o644))
	s.must(page.FillFile(filepath.Join(*out, "docs", "benchmarks.md"), "anatomy", table))
}

// kind is what a frame or a notice means for the move.
type kind int

const (
	addressGone kind = iota + 1
	addressCame
	fromPeer // a packet from the other node's agent arrived
	toPeer   // a packet to the other node's agent left
	announcement
	answer
)

// classify returns the kind of a frame that a node sends or hears; 0: it does not belong
// to the move.
func classify(frame []byte, leaving bool, vip, peer netip.Addr) kind {
	const ethernet, ip, udp = 14, 20, 8
	if len(frame) < ethernet+ip+udp {
		return 0
	}
	body := frame[ethernet:]
	switch encoding.BigEndian.Uint16(frame[12:]) {
	case 0x0806:
		if netip.AddrFrom4([4]byte(body[14:18])) == vip && leaving {
			return announcement
		}
	case 0x0800:
		if body[0] != 0x45 || body[9] != 17 {
			return 0
		}
		from, to := netip.AddrFrom4([4]byte(body[12:16])), netip.AddrFrom4([4]byte(body[16:20]))
		fromPort, toPort := encoding.BigEndian.Uint16(body[20:]), encoding.BigEndian.Uint16(body[22:])
		switch {
		case leaving && from == vip && fromPort == 5060:
			return answer
		case toPort != 7946:
			return 0
		case leaving && to == peer:
			return toPeer
		case !leaving && from == peer:
			return fromPeer
		}
	}
	return 0
}
