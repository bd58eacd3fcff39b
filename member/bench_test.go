package member

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"sipalive/elect"
)

// BenchmarkRoundTrip measures an ask and its answer between two networks with encryption.
// memberlist's own path took 0.10 ms for it (2 cores, Linux 6.18).
func BenchmarkRoundTrip(b *testing.B) {
	port := freePort(b)
	a, c := start(b, config(1, port)), start(b, config(2, port))
	seq := meetUp(b, a, c)
	done, echoed := make(chan struct{}), make(chan struct{})
	b.Cleanup(func() { close(done); <-echoed })
	go func() {
		defer close(echoed)
		for {
			select {
			case r := <-c.in:
				_ = c.Send(elect.Outgoing{To: "pbx1", Seq: r.Seq, Msg: elect.Answer{Re: r.Seq, Items: []elect.AnswerItem{{VIP: "192.0.2.101", Epoch: 7}}}})
			case <-done:
				return
			}
		}
	}()
	ask := elect.Ask{Lease: time.Second, Items: []elect.AskItem{{VIP: "192.0.2.101", Epoch: 7, Holding: true}}}
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		a.mustSend(b, "pbx2", seq, ask)
		if r := a.next(b); r.Seq != seq {
			b.Fatalf("answer %d to %d", r.Seq, seq)
		}
		took = append(took, time.Since(began))
		seq++
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkSend: its difference from BenchmarkSendToAddress is why we seal packets
// ourselves.
func BenchmarkSend(b *testing.B) {
	a := start(b, config(1, freePort(b)))
	out := elect.Outgoing{To: "pbx2", Msg: home().Msg}
	b.ReportAllocs()
	for b.Loop() {
		out.Seq++
		if err := a.Send(out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSendToAddress(b *testing.B) {
	port := freePort(b)
	a := start(b, config(1, port))
	to := memberlist.Address{Addr: netip.AddrPortFrom(addr(2), port).String()}
	p, buf := home(), make([]byte, 0, 1500)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = Encode(buf[:0], p)
		if err := a.list.SendToAddress(to, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	s, _ := newSealer("test", [][]byte{key})
	datagram := s.seal(append(s.begin(nil), mustEncode(b, home())...))
	plain := make([]byte, 0, 1500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.open(plain, datagram); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates: checked without it")
		return
	}
	n := &Network{count: &counts{}}
	n.guard = NewGuard("pbx1", 1, shared)
	s, err := newSealer("test", [][]byte{key})
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	p, err := openPath(netip.AddrPortFrom(addr(1), port))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	n.transport = &transport{paths: []*path{p}}
	n.current.Store(&directory{sealer: s, peers: map[elect.Node]*peer{
		"pbx2": {name: "pbx2", paths: []netip.AddrPort{netip.AddrPortFrom(addr(2), port)}}}})
	n.out = n.newSender()
	out := elect.Outgoing{To: "pbx2", Msg: home().Msg}
	if got := testing.AllocsPerRun(200, func() {
		out.Seq++
		if err := n.Send(out); err != nil {
			t.Fatal(err)
		}
	}); got > 0 {
		t.Errorf("%v allocations per packet", got)
	}
}
