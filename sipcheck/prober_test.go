package sipcheck

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// quick returns a target for servers that answer. Its timeout is long, so that a slow
// machine fails no test.
func quick(at netip.AddrPort) Target {
	return Target{Node: "pbx1", Name: "main", Address: at, Interval: 5 * time.Millisecond, Timeout: patience}
}

// silent returns a target for servers that do not answer. Its interval is so long that
// every further probe comes from the suspicion.
func silent(at netip.AddrPort) Target {
	return Target{Node: "pbx1", Name: "main", Address: at, Interval: time.Hour, Timeout: 40 * time.Millisecond}
}

// TestRecordedAnswersAreLife: recorded answers of FreeSWITCH count as healthy over each
// transport.
func TestRecordedAnswersAreLife(t *testing.T) {
	for file, want := range map[string]Answer{
		"freeswitch-200.sip":              {Code: 200, Phrase: "OK"},
		"freeswitch-paused-still-200.sip": {Code: 200, Phrase: "OK"},
		"freeswitch-standby-503.sip":      {Code: 503, Phrase: "System Paused"},
	} {
		t.Run(file, func(t *testing.T) {
			overAll(t, func(t *testing.T, k streamKind) {
				at, _ := k.listen(t, func(_ int, r request) [][]byte { return [][]byte{replay(t, file, r)} })
				p := k.launch(t, quick(at), Options{})
				res := p.change(Up)
				if res.Code != want.Code || res.Phrase != want.Phrase || !strings.HasPrefix(res.Server, "FreeSWITCH-mod_sofia/1.11.1") {
					t.Fatalf("got %+v", res.Answer)
				}
				if res.Previous != Unknown || res.Outcome != Answered || res.RTT <= 0 || res.Err != nil {
					t.Fatalf("got %+v", res)
				}
				// On a stream, one answer's end is followed by the next answer.
				p.until("three answers", func(s Stats) bool { return s.Answered >= 3 })
				if st := p.Stats(); st.Malformed+st.Late != 0 {
					t.Fatalf("%+v", st)
				}
			})
		})
	}
}

func TestListedCodeIsUnhealthyAfterFall(t *testing.T) {
	overAll(t, func(t *testing.T, k streamKind) {
		var paused atomic.Bool
		paused.Store(true)
		at, _ := k.listen(t, func(_ int, r request) [][]byte {
			if paused.Load() {
				return [][]byte{replay(t, "freeswitch-standby-503.sip", r)}
			}
			return [][]byte{replay(t, "freeswitch-200.sip", r)}
		})
		target := quick(at)
		target.UnhealthyCodes = []int{503}
		p := k.launch(t, target, Options{Every: true})
		for i := 1; i <= 3; i++ {
			want := Unknown
			if i == 3 {
				want = Unhealthy
			}
			if res := p.next(); res.Verdict != want || res.Outcome != Listed || res.Misses != i || !res.Listed {
				t.Fatalf("answer %d: %+v", i, res)
			}
		}
		paused.Store(false)
		if res := p.change(Up); res.Code != 200 {
			t.Fatalf("got %+v", res)
		}
	})
}

func TestRefusedAtOnceAndBack(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	p := launch(t, quick(s.addr), Options{Every: true})
	p.change(Up)
	s.kill()
	refused := p.change(Refused)
	if refused.Outcome != PortRefused || !errors.Is(refused.Err, syscall.ECONNREFUSED) {
		t.Fatalf("got %+v", refused)
	}
	serve(t, s.addr, always("200 OK"))
	for good := 0; ; {
		res := p.next()
		if res.Outcome == Answered {
			good++
		}
		if res.Changed {
			if res.Verdict != Up || good != DefaultRise {
				t.Fatalf("%v after %d good answers, want up after %d", res.Verdict, good, DefaultRise)
			}
			return
		}
	}
}

func TestFirstGoodAnswerAfterRefusalAtStart(t *testing.T) {
	at := ownAddress()
	p := launch(t, quick(at), Options{Every: true})
	p.change(Refused)
	serve(t, at, always("200 OK"))
	for {
		if res := p.next(); res.Outcome == Answered {
			if res.Verdict != Up {
				t.Fatalf("first good answer: %v", res.Verdict)
			}
			return
		}
	}
}

func TestSilenceIsFallProbesWithOneRetransmissionEach(t *testing.T) {
	s := serve(t, ownAddress(), mute)
	start := time.Now()
	p := launch(t, silent(s.addr), Options{})
	if first := p.next(); first.Changed || first.Misses != 1 || first.Outcome != Unanswered {
		t.Fatalf("want a suspicion first, got %+v", first)
	}
	res := p.change(Silent)
	if took := time.Since(start); took < 3*silent(s.addr).Timeout {
		t.Fatalf("silent after %v: before three timeouts", took)
	}
	if !errors.Is(res.Err, context.DeadlineExceeded) || !strings.Contains(res.Err.Error(), "no answer within 40ms") {
		t.Fatalf("error %v", res.Err)
	}
	if st := p.Stats(); st.Timeouts != 3 {
		t.Fatalf("%+v", st)
	}
	p.stop()
	sends := map[string]int{}
	for _, r := range s.requests() {
		sends[r.header("Via")+r.header("Call-ID")+r.header("CSeq")+r.header("From")]++
	}
	if len(sends) != 3 {
		t.Fatalf("%d probes, want 3 (and none after: the interval is an hour)", len(sends))
	}
	for id, n := range sends {
		if n > 2 {
			t.Fatalf("%s sent %d times", id, n)
		}
	}
}

func TestRetransmissionIsAnswered(t *testing.T) {
	s := serve(t, ownAddress(), func(n int, r request) [][]byte {
		if n == 0 {
			return nil
		}
		return [][]byte{reply(r, "200 OK")}
	})
	target := silent(s.addr)
	target.Timeout = patience // long enough for the retransmission after T1
	p := launch(t, target, Options{})
	res := p.change(Up)
	if r := s.requests(); len(r) != 2 || r[0] != r[1] {
		t.Fatalf("want the same message twice, got %q", r)
	}
	if res.RTT < timer1 || res.Misses != 0 || p.Stats().Sent != 2 {
		t.Fatalf("%+v, %+v", res, p.Stats())
	}
}

func TestGoodAnswerDispelsSuspicion(t *testing.T) {
	s := serve(t, ownAddress(), func(n int, r request) [][]byte {
		if n == 1 || n == 2 { // both packets of the second probe
			return nil
		}
		return [][]byte{reply(r, "200 OK")}
	})
	target := quick(s.addr)
	target.Timeout = time.Second
	p := launch(t, target, Options{})
	p.change(Up)
	if res := p.next(); res.Misses != 1 || res.Verdict != Up {
		t.Fatalf("want a suspicion, got %+v", res)
	}
	if res := p.next(); res.Misses != 0 || res.Verdict != Up || res.Changed {
		t.Fatalf("want it dispelled, got %+v", res)
	}
}

// TestLateAnswersDoNotCount: the server is always one probe late; its answers are
// correct.
func TestLateAnswersDoNotCount(t *testing.T) {
	var last request
	s := serve(t, ownAddress(), func(_ int, r request) [][]byte {
		var out [][]byte
		if last != "" && last != r {
			out = append(out, reply(last, "200 OK"))
		}
		last = r
		return out
	})
	p := launch(t, silent(s.addr), Options{})
	p.change(Silent)
	if st := p.Stats(); st.Answered != 0 || st.Late == 0 {
		t.Fatalf("%+v", st)
	}
}

func TestDuplicateAnswersAreFine(t *testing.T) {
	s := serve(t, ownAddress(), func(_ int, r request) [][]byte {
		b := reply(r, "200 OK")
		return [][]byte{b, b, b}
	})
	p := launch(t, quick(s.addr), Options{})
	p.change(Up)
	p.until("answers and their duplicates", func(s Stats) bool { return s.Answered >= 20 && s.Late >= 20 })
	if st := p.Stats(); st.Malformed != 0 || st.Timeouts != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestProvisionalAnswer(t *testing.T) {
	t.Run("alone is life", func(t *testing.T) {
		s := serve(t, ownAddress(), always("100 Trying"))
		target := silent(s.addr)
		target.Timeout = time.Second
		if res := launch(t, target, Options{}).change(Up); res.Code != 100 {
			t.Fatalf("%+v", res)
		}
		if n := len(s.requests()); n != 1 {
			t.Fatalf("asked %d times after a provisional answer", n)
		}
	})
	t.Run("does not hide the final one", func(t *testing.T) {
		s := serve(t, ownAddress(), func(_ int, r request) [][]byte {
			return [][]byte{reply(r, "100 Trying"), reply(r, "503 Full")}
		})
		target := quick(s.addr)
		target.UnhealthyCodes = []int{503}
		if res := launch(t, target, Options{}).change(Unhealthy); res.Phrase != "Full" {
			t.Fatalf("%+v", res)
		}
	})
}

func TestSpoiledAnswersAreNoLife(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(request) []byte
	}{
		{"no To", func(r request) []byte {
			return []byte(strings.Replace(string(reply(r, "200 OK")), "\r\nTo: ", "\r\nX: ", 1))
		}},
		{"wrong Call-ID", func(r request) []byte {
			return bytes.Replace(reply(r, "200 OK"), []byte("Call-ID: "), []byte("Call-ID: x"), 1)
		}},
		{"64 KB", func(r request) []byte {
			b := bytes.Replace(reply(r, "200 OK"), []byte("Content-Length: 0"), []byte("Content-Length: 64000"), 1)
			return append(b, bytes.Repeat([]byte("x"), 64000)...)
		}},
		{"the request sent back", func(r request) []byte { return []byte(r) }},
		{"an empty datagram", func(request) []byte { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, ownAddress(), func(_ int, r request) [][]byte { return [][]byte{c.spoil(r)} })
			p := launch(t, silent(s.addr), Options{})
			p.change(Silent)
			if st := p.Stats(); st.Answered != 0 || st.Malformed == 0 || st.Late != 0 {
				t.Fatalf("%+v", st)
			}
		})
	}
}

// TestGarbageFloodKeepsUp: 10,000 pieces of garbage come from the server's own port, ten
// per millisecond or so. The good answers among them keep the target up.
func TestGarbageFloodKeepsUp(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	target := quick(s.addr)
	target.Timeout = 2 * time.Second
	p := launch(t, target, Options{})
	p.change(Up)
	to := net.UDPAddrFromAddrPort(s.firstSource())
	var garbage [][]byte
	for _, c := range spoiled() {
		if c.want != nil && len(c.datagram) < 1000 {
			garbage = append(garbage, []byte(c.datagram))
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range 10000 {
		if i%10 == 0 {
			<-tick.C
		}
		if _, err := s.conn.WriteTo(garbage[i%len(garbage)], to); err != nil {
			t.Fatal(err)
		}
	}
	answered := p.Stats().Answered
	p.until("answers after the flood", func(s Stats) bool { return s.Answered > answered+5 })
	st := p.Stats()
	t.Logf("dropped %d malformed and %d late of 10000; %d answers, %d timeouts", st.Malformed, st.Late, st.Answered, st.Timeouts)
	if st.Malformed+st.Late < 5000 || st.Malformed == 0 {
		t.Fatalf("most of the flood went uncounted: %+v", st)
	}
	select {
	case res := <-p.results:
		t.Fatalf("the flood changed something: %+v", res)
	default:
	}
}

func (s *server) firstSource() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from[0]
}

// TestStarvedProberReadsBeforeItJudges: a process got no CPU for longer than the timeout.
// It must find the answer in its socket, and not report silence. The test's clock
// simulates the lost time.
func TestStarvedProberReadsBeforeItJudges(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	target := quick(s.addr)
	target.Timeout = 50 * time.Millisecond
	var stall atomic.Bool
	p := launch(t, target, Options{Every: true, Now: func() time.Time {
		now := time.Now()
		if stall.Load() {
			time.Sleep(3 * target.Timeout)
		}
		return now
	}})
	p.change(Up)
	stall.Store(true)
	for range 5 {
		if res := p.next(); res.Outcome == Unanswered {
			t.Fatalf("an answer that had arrived was taken for silence: %+v", res)
		}
	}
}

func TestProbeNowDoesNotWaitForTheInterval(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	target := quick(s.addr)
	target.Interval = time.Hour
	p := launch(t, target, Options{})
	p.change(Up)
	p.ProbeNow()
	if res := p.next(); !res.Asked || res.Outcome != Answered {
		t.Fatalf("%+v", res)
	}
	s.kill()
	p.ProbeNow()
	p.change(Refused)
}

// TestProbeNowUrgesAProbeUnderWay: the server dies before it answers the probe's first
// packet. ProbeNow finds out without waiting for the retransmission or the timeout.
func TestProbeNowUrgesAProbeUnderWay(t *testing.T) {
	s := serve(t, ownAddress(), mute)
	target := quick(s.addr)
	target.Timeout = time.Hour
	p := launch(t, target, Options{})
	p.until("the first packet", func(s Stats) bool { return s.Sent >= 1 })
	s.kill()
	p.ProbeNow()
	p.change(Refused)
}

// TestUrgedProbeIsFollowedByAFreshOne: ProbeNow is called during a probe, which stays
// unanswered. Another probe that began after the call must follow, even if the target is
// silent already.
func TestUrgedProbeIsFollowedByAFreshOne(t *testing.T) {
	s := serve(t, ownAddress(), mute)
	target := silent(s.addr)
	target.Fall, target.Timeout = 1, 500*time.Millisecond
	p := launch(t, target, Options{})
	p.change(Silent)
	p.ProbeNow() // the next regular probe is an hour away: this starts one
	p.until("a probe under way", func(s Stats) bool { return s.Sent > 2 })
	urged := time.Now()
	p.ProbeNow()
	for {
		if res := p.next(); res.Asked && res.Started.After(urged) {
			return
		}
	}
}

// TestProbePushesOnce: a waiting Probe repeats the probe under way once, not every 10 ms.
func TestProbePushesOnce(t *testing.T) {
	s := serve(t, ownAddress(), mute)
	target := silent(s.addr)
	target.Timeout = 500 * time.Millisecond
	p := launch(t, target, Options{})
	p.until("a probe under way", func(s Stats) bool { return s.Sent >= 1 })
	if _, err := p.Probe(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	p.stop()
	sends := map[string]int{}
	for _, r := range s.requests() {
		sends[r.header("Call-ID")]++
	}
	for id, n := range sends {
		if n > 3 {
			t.Fatalf("%s sent %d times", id, n)
		}
	}
}

func TestProbeNowIsCoalesced(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	target := quick(s.addr)
	target.Interval = time.Hour
	p := launch(t, target, Options{})
	p.change(Up)
	start, calls := time.Now(), 0
	for ; time.Since(start) < 200*time.Millisecond || p.Stats().Sent < 3 && time.Since(start) < patience; calls++ {
		p.ProbeNow()
	}
	took := time.Since(start)
	sent, most := p.Stats().Sent, uint64(took/urgentGap)+3
	t.Logf("%d calls in %v: %d packets", calls, took, sent)
	if sent > most || sent < 3 {
		t.Fatalf("%d packets, want 3 to %d", sent, most)
	}
}

func TestLateRefusalAsksAgain(t *testing.T) {
	p := NewProber(quick(ownAddress()), Options{})
	p.received(arrival{err: syscall.ECONNREFUSED})
	if !p.urgent || p.judge.verdict != Unknown {
		t.Fatalf("urgent %v, %v: a refusal of no probe should cause one, and judge nothing", p.urgent, p.judge.verdict)
	}
}

// TestProbeReturnsItsOwnAnswer: the answer to a probe that was sent before the call comes
// after it. Probe waits for the answer to its own probe.
func TestProbeReturnsItsOwnAnswer(t *testing.T) {
	arrived := make(chan struct{}, 10)
	var first request
	s := serve(t, ownAddress(), func(n int, r request) [][]byte {
		if n == 0 {
			first = r
			arrived <- struct{}{}
			return nil
		}
		if r == first {
			return [][]byte{reply(r, "200 Old")}
		}
		return [][]byte{reply(r, "404 Own")}
	})
	target := quick(s.addr)
	target.Interval, target.Timeout = time.Hour, time.Hour
	p := launch(t, target, Options{})
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := p.Probe(ctx)
	if err != nil || a.Code != 404 || a.Phrase != "Own" {
		t.Fatalf("%+v, %v", a, err)
	}
	p.change(Up)
	if res := p.next(); !res.Asked || res.Phrase != "Own" {
		t.Fatalf("%+v", res)
	}
}

func TestProbeFails(t *testing.T) {
	at := ownAddress()
	p := launch(t, quick(at), Options{})
	_, err := p.Probe(t.Context())
	want := "OPTIONS sip:" + at.String() + ": connection refused (nothing listens on that UDP port)"
	if !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
		t.Errorf("refused: %v, want %s", err, want)
	}
	s := serve(t, ownAddress(), mute)
	mutes := launch(t, silent(s.addr), Options{})
	if _, err := mutes.Probe(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	slow := silent(s.addr)
	slow.Timeout = time.Hour
	waits := launch(t, slow, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := waits.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := waits.Probe(context.Background())
		ended <- err
	}()
	waits.until("the probe", func(s Stats) bool { return s.Sent > 0 })
	waits.stop()
	if err := <-ended; !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	err := NewProber(Target{Node: "pbx1", Name: "main"}, Options{}).Run(t.Context())
	if err == nil || err.Error() != "probe main of pbx1: no address and port to ask (give both)" {
		t.Errorf("got %v", err)
	}
	s := serve(t, ownAddress(), always("200 OK"))
	p := launch(t, quick(s.addr), Options{})
	p.change(Up)
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("second Run: %v", err)
	}
}

func TestProbesComeFromTheLocalAddress(t *testing.T) {
	s := serve(t, ownAddress(), always("200 OK"))
	local := netip.MustParseAddr("127.1.2.3")
	launch(t, quick(s.addr), Options{Local: local}).change(Up)
	from, via := s.firstSource(), s.requests()[0].header("Via")
	if from.Addr().Unmap() != local || !strings.Contains(via, from.String()) {
		t.Fatalf("from %v, Via %s", from, via)
	}
}

func TestIPv6(t *testing.T) {
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	at := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	conn.Close()
	s := serve(t, at, always("200 OK"))
	launch(t, quick(s.addr), Options{}).change(Up)
	if via := s.requests()[0].header("Via"); !strings.HasPrefix(via, "SIP/2.0/UDP [::1]:") {
		t.Fatal(via)
	}
}

func TestZeroTargetGetsDefaults(t *testing.T) {
	got := NewProber(Target{}, Options{}).Target()
	if got.Interval != time.Second || got.Timeout != 400*time.Millisecond || got.Fall != 3 || got.Rise != 3 || got.UserAgent != "sipalive" {
		t.Fatalf("%+v", got)
	}
}

// echo starts a server in this process that answers everything.
func echo(tb testing.TB) netip.AddrPort {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	go func() { // does as little as possible: its work counts in the measurement
		buf, out := make([]byte, 65535), []byte(nil)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			head, rest, _ := bytes.Cut(buf[:n], []byte("\r\n"))
			_ = head
			out = append(append(out[:0], "SIP/2.0 200 OK\r\n"...), rest...)
			conn.WriteToUDPAddrPort(out, from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// probeAsks returns a function that makes one Probe and takes its result.
func probeAsks(tb testing.TB, at netip.AddrPort) (ask func()) {
	target := quick(at)
	target.Interval = time.Hour
	p := launch(tb, target, Options{})
	p.change(Up)
	return func() {
		if _, err := p.Probe(context.Background()); err != nil {
			tb.Fatal(err)
		}
		<-p.results
	}
}

// BenchmarkProbe measures one Probe against a server in this process, with its answer.
func BenchmarkProbe(b *testing.B) {
	ask := probeAsks(b, echo(b))
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}

func BenchmarkMatchAnswer(b *testing.B) {
	p, good := newAnswerParser(), []byte(goodAnswer)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := matchAnswer(p, good, probeIDs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDropGarbage(b *testing.B) {
	p, late := newAnswerParser(), []byte(strings.Replace(goodAnswer, "z9hG4bK0", "z9hG4bK9", 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := matchAnswer(p, late, probeIDs); !errors.Is(err, errLate) {
			b.Fatal(err)
		}
	}
}
