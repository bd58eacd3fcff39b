package sipcheck

import (
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

// overStreams runs a test over TCP and over TLS.
func overStreams(t *testing.T, f func(t *testing.T, s streamKind)) {
	a := newAuthority(t)
	for _, by := range []Transport{TCP, TLS} {
		t.Run(by.String(), func(t *testing.T) { f(t, streamKind{by, a}) })
	}
}

// overAll runs a test over UDP as well.
func overAll(t *testing.T, f func(t *testing.T, k streamKind)) {
	t.Run(UDP.String(), func(t *testing.T) { f(t, streamKind{by: UDP, ca: &authority{}}) })
	overStreams(t, f)
}

// listen starts a server over k's transport. It returns the address, and a function that
// returns the requests so far.
func (k streamKind) listen(t testing.TB, answer behaviour) (at netip.AddrPort, requests func() []request) {
	t.Helper()
	if k.by == UDP {
		s := serve(t, ownAddress(), answer)
		return s.addr, s.requests
	}
	s := k.serve(t, ownAddress(), answers(answer))
	return s.addr, s.requests
}

type streamKind struct {
	by Transport
	ca *authority
}

func (k streamKind) serve(t testing.TB, at netip.AddrPort, answer talk) *streamServer {
	t.Helper()
	if k.by == TLS {
		return serveStream(t, at, k.ca.issue(t, time.Now().Add(time.Hour)), answer)
	}
	return serveStream(t, at, nil, answer)
}

func (k streamKind) launch(t testing.TB, target Target, opts Options) *running {
	t.Helper()
	target.Transport = k.by
	opts.Security.Roots = k.ca.roots
	return launch(t, target, opts)
}

func TestStreamKeepsItsConnection(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), answers(always("200 OK")))
		p := k.launch(t, quick(s.addr), Options{})
		res := p.change(Up)
		if res.Code != 200 || res.RTT <= 0 || res.Connect <= 0 || (res.Certificate != nil) != (k.by == TLS) {
			t.Fatalf("%+v", res)
		}
		p.until("fifty answers", func(s Stats) bool { return s.Answered >= 50 })
		if n := s.accepts(); n != 1 {
			t.Fatalf("%d connections for one prober", n)
		}
		if via := s.requests()[0].header("Via"); !strings.HasPrefix(via, "SIP/2.0/"+k.by.via()+" 127.0.0.1:") {
			t.Fatal(via)
		}
		if st := p.Stats(); st.Timeouts+st.Malformed+st.Late+st.SendErrors != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestStreamConnectionIsRenewed(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), answers(always("200 OK")))
		target := quick(s.addr)
		target.Transport = k.by
		p := &running{t: t, results: make(chan Result, 100000)}
		p.Prober = NewProber(target, Options{Security: Security{Roots: k.ca.roots}, Deliver: func(r Result) { p.results <- r }})
		p.link.(*streams).age = 50 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		p.change(Up)
		for deadline := time.Now().Add(patience); s.accepts() < 5; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections; %+v", s.accepts(), p.Stats())
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if st := p.Stats(); st.Timeouts+st.Malformed+st.Late != 0 || len(p.results) != 0 {
			t.Fatalf("a renewal was noticed: %+v", st)
		}
	})
}

// TestStreamKilledServerIsRefusedAtOnce: the interval is an hour, so only the reset can
// have caused the probe that finds the port closed.
func TestStreamKilledServerIsRefusedAtOnce(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), answers(always("200 OK")))
		target := quick(s.addr)
		target.Interval = time.Hour
		p := k.launch(t, target, Options{})
		p.change(Up)
		killed := time.Now()
		s.kill()
		res := p.change(Refused)
		t.Logf("refused %v after the kill", time.Since(killed))
		want := "OPTIONS sip:" + s.addr.String() + ";transport=" + k.by.String() + ": connection refused (nothing listens on that TCP port)"
		if !errors.Is(res.Err, syscall.ECONNREFUSED) || res.Err.Error() != want {
			t.Fatalf("%v, want %s", res.Err, want)
		}
		k.serve(t, s.addr, answers(always("200 OK")))
		for range 3 {
			p.ProbeNow()
			p.next()
		}
		p.until("answers", func(s Stats) bool { return s.Answered >= 4 })
	})
}

// TestStreamFreshProbeNeedsTheListener: the listener is gone, but its connections live
// on. A fresh probe finds that out.
func TestStreamFreshProbeNeedsTheListener(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), answers(always("200 OK")))
		target := quick(s.addr)
		target.Interval = time.Hour
		p := k.launch(t, target, Options{})
		p.change(Up)
		s.ln.Close()
		if _, err := p.Probe(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		p.change(Refused)
	})
}

// TestStreamClosedAfterEachAnswer: servers close connections whenever they like. That
// causes no verdict, no suspicion, and at most one more probe per endGap.
func TestStreamClosedAfterEachAnswer(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), func(_ int, r request) ([][]byte, bool) { return [][]byte{reply(r, "200 OK")}, true })
		target := quick(s.addr)
		target.Interval = 20 * time.Millisecond
		start := time.Now()
		p := k.launch(t, target, Options{})
		p.change(Up)
		p.until("twenty answers", func(s Stats) bool { return s.Answered >= 20 })
		st := p.Stats()
		if len(p.results) > 0 && st.Timeouts > 0 {
			t.Fatalf("%+v", st)
		}
		most := uint64(time.Since(start)/target.Interval) + uint64(time.Since(start)/endGap) + 3
		if st.Answered > most || st.Timeouts != 0 {
			t.Fatalf("at most %d probes: %+v", most, st)
		}
	})
}

func TestStreamHangsUpUnanswered(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), func(int, request) ([][]byte, bool) { return nil, true })
		target := silent(s.addr)
		target.Timeout = 100 * time.Millisecond
		start := time.Now()
		p := k.launch(t, target, Options{})
		res := p.change(Silent)
		if took := time.Since(start); took < 3*target.Timeout {
			t.Fatalf("silent after %v: before three timeouts", took)
		}
		if !strings.Contains(res.Err.Error(), "the server closed the connection without an answer") &&
			!strings.Contains(res.Err.Error(), "connection reset by peer") {
			t.Fatal(res.Err)
		}
		if n := s.accepts(); n > 3*3 {
			t.Fatalf("%d connections in three probes", n)
		}
	})
}

// TestStreamFrozenServerIsSilent: the process is frozen. Its kernel accepts, and nothing
// answers.
func TestStreamFrozenServerIsSilent(t *testing.T) {
	for _, by := range []Transport{TCP, TLS} {
		t.Run(by.String(), func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			target := silent(ln.Addr().(*net.TCPAddr).AddrPort())
			target.Transport = by
			p := launch(t, target, Options{})
			res := p.change(Silent)
			if !errors.Is(res.Err, context.DeadlineExceeded) {
				t.Fatal(res.Err)
			}
			want := map[Transport]string{TCP: "no answer within 40ms (connected, but the server hangs)", TLS: "no connection within 40ms"}[by]
			if !strings.Contains(res.Err.Error(), want) {
				t.Fatalf("%v, want %s", res.Err, want)
			}
		})
	}
}

func TestStreamSuspicionTakesANewConnection(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), func(n int, r request) ([][]byte, bool) {
			if n == 1 {
				return nil, false
			}
			return [][]byte{reply(r, "200 OK")}, false
		})
		target := quick(s.addr)
		target.Timeout = time.Second
		p := k.launch(t, target, Options{})
		p.change(Up)
		if res := p.next(); res.Misses != 1 || res.Verdict != Up {
			t.Fatalf("want a suspicion, got %+v", res)
		}
		if res := p.next(); res.Misses != 0 || res.Verdict != Up {
			t.Fatalf("want it dispelled, got %+v", res)
		}
		if n := s.accepts(); n != 2 {
			t.Fatalf("%d connections, want a second one", n)
		}
	})
}

func TestStreamStarvedProberIsGraced(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, ownAddress(), answers(always("200 OK")))
		target := quick(s.addr)
		target.Timeout = 50 * time.Millisecond
		var stall atomic.Bool
		p := k.launch(t, target, Options{Every: true, Now: func() time.Time {
			now := time.Now()
			if stall.Load() {
				time.Sleep(3 * target.Timeout)
			}
			return now
		}})
		p.change(Up)
		stall.Store(true)
		for range 3 {
			if res := p.next(); res.Outcome == Unanswered {
				t.Fatalf("an answer that had arrived was taken for silence: %+v", res)
			}
		}
	})
}

func TestStreamSpoiledAnswersAreNoLife(t *testing.T) {
	for name, c := range map[string]struct {
		spoil           func(request) string
		malformed, late bool
	}{
		"another branch": {func(r request) string {
			return strings.Replace(string(reply(r, "200 OK")), "z9hG4bK", "z9hG4bKx", 1)
		}, false, true},
		"another Call-ID": {func(r request) string {
			return strings.Replace(string(reply(r, "200 OK")), "Call-ID: ", "Call-ID: x", 1)
		}, true, false},
		"no Content-Length": {func(r request) string {
			return strings.Replace(string(reply(r, "200 OK")), "Content-Length: 0\r\n", "", 1)
		}, true, false},
		"another protocol":    {func(request) string { return "SSH-2.0-OpenSSH_9.2\r\n\r\n" }, true, false},
		"an endless line":     {func(request) string { return strings.Repeat("x", 2*maxAnswer) }, true, false},
		"endless empty lines": {func(request) string { return strings.Repeat("\r\n", 2*maxAnswer) }, true, false},
		"a body of gigabytes": {func(r request) string {
			return strings.Replace(string(reply(r, "200 OK")), "Length: 0", "Length: 2000000000", 1)
		}, true, false},
		"the request itself": {func(r request) string { return string(r) }, true, false},
		"two Content-Lengths": {func(r request) string {
			return strings.Replace(string(reply(r, "200 OK")), "CSeq:", "l: 5\r\nCSeq:", 1)
		}, true, false},
		"a Content-Length < 0": {func(r request) string {
			return strings.Replace(string(reply(r, "200 OK")), "Length: 0", "Length: -1", 1)
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			overStreams(t, func(t *testing.T, k streamKind) {
				s := k.serve(t, ownAddress(), func(_ int, r request) ([][]byte, bool) { return [][]byte{[]byte(c.spoil(r))}, false })
				p := k.launch(t, silent(s.addr), Options{})
				p.change(Silent)
				if st := p.Stats(); st.Answered != 0 || (st.Malformed > 0) != c.malformed || (st.Late > 0) != c.late {
					t.Fatalf("%+v", st)
				}
			})
		})
	}
}

// TestStreamFraming: bytes arrive as the network likes, one at a time or several messages
// at once.
func TestStreamFraming(t *testing.T) {
	t.Run("drip", func(t *testing.T) {
		s := serveStream(t, ownAddress(), nil, func(_ int, r request) (out [][]byte, _ bool) {
			for _, b := range append([]byte("\r\n\r\n"), reply(r, "200 OK")...) {
				out = append(out, []byte{b})
			}
			return out, false
		})
		p := launch(t, with(quick(s.addr), TCP), Options{})
		p.change(Up)
		p.until("answers", func(s Stats) bool { return s.Answered > 5 })
	})
	t.Run("three at once", func(t *testing.T) {
		s := serveStream(t, ownAddress(), nil, func(_ int, r request) ([][]byte, bool) {
			b := string(reply(r, "100 Trying")) + "OPTIONS sip:ping@127.0.0.1 SIP/2.0\r\nContent-Length: 3\r\n\r\nabc" + string(reply(r, "503 Full"))
			return [][]byte{[]byte(b)}, false
		})
		target := with(quick(s.addr), TCP)
		target.UnhealthyCodes = []int{503}
		p := launch(t, target, Options{})
		if res := p.change(Unhealthy); res.Phrase != "Full" {
			t.Fatalf("%+v", res)
		}
		if st := p.Stats(); st.Malformed == 0 {
			t.Fatalf("the request went uncounted: %+v", st)
		}
	})
}

func with(t Target, by Transport) Target {
	t.Transport = by
	return t
}

func TestStreamIPv6(t *testing.T) {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	overStreams(t, func(t *testing.T, k streamKind) {
		s := k.serve(t, at, answers(always("200 OK")))
		k.launch(t, quick(s.addr), Options{Local: netip.IPv6Loopback()}).change(Up)
		if via := s.requests()[0].header("Via"); !strings.Contains(via, " [::1]:") {
			t.Fatal(via)
		}
	})
}

func TestStreamEndsInTheMiddleOfAHandshake(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	target := with(quick(ln.Addr().(*net.TCPAddr).AddrPort()), TLS)
	p := launch(t, target, Options{})
	if _, err := ln.Accept(); err != nil {
		t.Fatal(err)
	}
	p.stop() // fails unless Run and the connection's goroutine end
}
