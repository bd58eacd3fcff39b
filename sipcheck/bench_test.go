package sipcheck

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// BenchmarkProbeOverStreams measures one probe and its answer over a kept connection.
func BenchmarkProbeOverStreams(b *testing.B) {
	ca := newAuthority(b)
	for _, k := range []streamKind{{TCP, ca}, {TLS, ca}} {
		b.Run(k.by.String(), func(b *testing.B) {
			s := k.serve(b, ownAddress(), answers(always("200 OK")))
			target := with(quick(s.addr), k.by)
			target.Interval = time.Nanosecond // one probe right after the other
			done := make(chan struct{}, 1)
			p := NewProber(target, Options{Security: Security{Roots: ca.roots}, Every: true, Deliver: func(Result) { done <- struct{}{} }})
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.Run(ctx) }()
			<-done
			b.ReportAllocs()
			for b.Loop() {
				<-done
			}
			cancel()
			go func() {
				for range done {
				}
			}()
			<-ended
			close(done)
		})
	}
}

// BenchmarkRefused measures how long it takes to find out that nothing listens on a port.
func BenchmarkRefused(b *testing.B) {
	target := quick(ownAddress())
	var took []time.Duration
	for b.Loop() {
		p := NewProber(target, Options{})
		p.nextAt = time.Now()
		p.step(p.nextAt)
		for p.flight.active {
			p.wait(p.due())
		}
		took = append(took, time.Since(p.nextAt.Add(-target.Interval)))
		p.link.close()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "median-µs")
}

// BenchmarkSipgoClient sends the same OPTIONS with sipgo's own client to the same server
// as BenchmarkProbe.
func BenchmarkSipgoClient(b *testing.B) {
	ask := sipgoAsks(b, echo(b))
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}

// sipgoAsks returns a function that sends one OPTIONS with sipgo's own client and waits
// for the answer.
func sipgoAsks(tb testing.TB, at netip.AddrPort) (ask func()) {
	before := slog.Default()
	tb.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	ua, err := sipgo.NewUA()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ua.Close() })
	client, err := sipgo.NewClient(ua, sipgo.WithClientHostname("127.0.0.1"), sipgo.WithClientConnectionAddr("127.0.0.1:0"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { client.Close() })
	to := sip.Uri{Scheme: "sip", Host: at.Addr().String(), Port: int(at.Port())}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		res, err := client.Do(ctx, sip.NewRequest(sip.OPTIONS, to))
		if err != nil || res.StatusCode != 200 {
			tb.Fatal(res, err)
		}
	}
}

// TestProbeAllocatesLessThanSipgo: our probe appends its message as bytes and makes no
// transaction for it.
func TestProbeAllocatesLessThanSipgo(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: checked without it")
		return
	}
	at := echo(t)
	ours := testing.AllocsPerRun(100, probeAsks(t, at))
	theirs := testing.AllocsPerRun(100, sipgoAsks(t, at))
	t.Logf("%v allocations for a probe, %v for sipgo's client", ours, theirs)
	if ours >= theirs {
		t.Errorf("%v allocations for a probe, %v for sipgo's client", ours, theirs)
	}
	if ours > 48 {
		t.Errorf("%v allocations for a probe, want 48 at most", ours)
	}
}
