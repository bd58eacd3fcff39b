package bench

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// BenchmarkPlannedMove measures the silence that a phone hears while vip1 moves.
func BenchmarkPlannedMove(b *testing.B) {
	s := start(b, calm)
	s.observe()
	s.silences("planned move", 5*time.Millisecond, func() error {
		_, err := s.Client(0).Do(context.Background(), control.Command{Kind: control.Move, VIP: "vip1", Node: "pbx3"})
		return err
	}, nothing)
}

// BenchmarkTerminated measures the silence when the holder's agent is stopped by SIGTERM.
func BenchmarkTerminated(b *testing.B) {
	s := start(b, calm)
	s.observe()
	s.silences("SIGTERM to the holder", 5*time.Millisecond, func() error {
		return s.Agent(0).Signal(syscall.SIGTERM)
	}, func() error {
		ctx, cancel := cluster.Deadline(patience)
		defer cancel()
		return errors.Join(s.Agent(0).Wait(ctx), s.StartAgent(0))
	})
}

// BenchmarkPBXKilled measures the silence after kill -9 of the holder's SIP server.
func BenchmarkPBXKilled(b *testing.B) {
	s := start(b, calm)
	s.observe()
	s.silences("PBX killed", 10*time.Millisecond, func() error {
		s.PBX(0).Kill()
		return nil
	}, func() error { return s.StartPBX(0) })
}

// BenchmarkHostSilent measures the silence after the holder's switch port died. The lease
// is the default, 1 s.
func BenchmarkHostSilent(b *testing.B) {
	s := start(b, calm)
	s.observe()
	s.silences("host silent, lease 1 s", 1050*time.Millisecond, func() error { return s.Cut(s.Node(0)) },
		func() error { return s.Restore(s.Node(0)) })
}

// BenchmarkLoss counts answers to the phone from other nodes in a minute of 20 % loss.
func BenchmarkLoss(b *testing.B) {
	s := start(b, "[timing]\nheartbeat = \"100ms\"\nlease = \"250ms\"\nhold_down = \"0s\"\n")
	s.observe()
	for v := range s.VIPs {
		s.await("the phone", func(context.Context) error {
			if last, ok := s.phones[v].Last(); !ok || last.Server != s.Node(v).Name {
				return fmt.Errorf("last answer from %q", last.Server)
			}
			return nil
		})
	}
	at := lab.Now()
	s.must(s.Loss(20))
	time.Sleep(time.Minute)
	s.must(s.Loss(0))
	moved := 0
	for v, addr := range s.VIPs {
		r := s.phones[v].Report(at, 0)
		last := s.Node(v).Name
		for _, t := range s.arp.Tenures(addr) {
			if t.To >= at && t.Host != last {
				moved++
				last = t.Host
			}
		}
		fmt.Printf("  %s: %d of %d questions answered, by %v\n", cluster.VIPName(v), r.Answered, r.Sent, r.By)
	}
	s.tellTakeovers(at)
	fmt.Printf("  %-28s %d takeovers in 60 s           target 0              lease 250 ms, load %s\n", "20 % loss", moved, load())
	b.ReportMetric(float64(moved), "takeovers")
	b.ReportMetric(0, "ns/op")
}

// tellTakeovers prints what the agents report of takeovers since a moment, and how late
// each agent woke up at worst. An agent that the machine kept from running for most of
// its lease lost the lease to that, not to the packet loss.
func (s *site) tellTakeovers(since time.Duration) {
	from := time.Now().Add(since - lab.Now())
	for i, h := range s.Nodes() {
		st, err := s.Client(i).Status(context.Background())
		s.must(err)
		fmt.Printf("  %s: woke up %.1f ms late at worst\n", h.Name, float64(st.Counters["loop_latest_wakeup_us"])/1000)
		events, err := s.Client(i).Events(context.Background(), 1000)
		s.must(err)
		for _, e := range events {
			if e.Kind == control.Takeover && !e.Told && e.Time.After(from) {
				fmt.Printf("  %s: %s: %s -> %s, %s, after %.1f s\n", h.Name, e.VIP, e.From, e.To, e.Reason, e.Time.Sub(from).Seconds())
			}
		}
	}
}
