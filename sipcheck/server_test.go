package sipcheck

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen. It is long, because tests
// run on two busy cores.
const patience = 15 * time.Second

// request is an OPTIONS as a server received it.
type request string

// header returns the first value of a header, as written.
func (r request) header(name string) string {
	for line := range strings.SplitSeq(string(r), "\r\n") {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return value
		}
	}
	return ""
}

// reply returns the shortest correct answer to r.
func reply(r request, status string) []byte {
	return []byte("SIP/2.0 " + status + "\r\nVia: " + r.header("Via") + "\r\nFrom: " + r.header("From") +
		"\r\nTo: " + r.header("To") + ";tag=srv\r\nCall-ID: " + r.header("Call-ID") +
		"\r\nCSeq: " + r.header("CSeq") + "\r\nContent-Length: 0\r\n\r\n")
}

var perProbe = regexp.MustCompile(`(?m)^(Via|From|Call-ID|CSeq): [^\r\n]*`)

// replay returns a recorded answer with the request's own Via, From, Call-ID and CSeq.
func replay(t testing.TB, file string, r request) []byte {
	t.Helper()
	recorded, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return perProbe.ReplaceAllFunc(recorded, func(line []byte) []byte {
		name, _, _ := strings.Cut(string(line), ":")
		return []byte(name + ": " + r.header(name))
	})
}

// server is a SIP server made from one function, which returns what to send back for the
// n-th datagram (from 0). It closes with the test.
type server struct {
	t      testing.TB
	conn   *net.UDPConn
	addr   netip.AddrPort
	closed chan struct{}

	mu   sync.Mutex
	seen []request
	from []netip.AddrPort
}

type behaviour func(n int, r request) [][]byte

// ownAddress returns a loopback address and port that no other test uses, so that nobody
// takes the port while the server is down.
func ownAddress() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(250)), byte(2 + rand.IntN(250))}), 5060)
}

func serve(t testing.TB, at netip.AddrPort, answer behaviour) *server {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, conn: conn, addr: at, closed: make(chan struct{})}
	go s.loop(answer)
	t.Cleanup(s.kill)
	return s
}

func (s *server) loop(answer behaviour) {
	defer close(s.closed)
	buf := make([]byte, 65535)
	for n := 0; ; n++ {
		size, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		r := request(buf[:size])
		s.mu.Lock()
		s.seen, s.from = append(s.seen, r), append(s.from, from)
		s.mu.Unlock()
		for _, b := range answer(n, r) {
			s.conn.WriteToUDPAddrPort(b, from)
		}
	}
}

// kill ends the server; its port is closed when it returns.
func (s *server) kill() {
	s.conn.Close()
	<-s.closed
}

func (s *server) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.seen...)
}

func always(status string) behaviour {
	return func(_ int, r request) [][]byte { return [][]byte{reply(r, status)} }
}

func mute(int, request) [][]byte { return nil }

// running is a running prober and the Results that it delivered.
type running struct {
	*Prober
	t       testing.TB
	results chan Result
	stop    func()
}

// launch runs a prober. The prober ends with the test, before its server does.
func launch(t testing.TB, target Target, opts Options) *running {
	t.Helper()
	r := &running{t: t, results: make(chan Result, 10000)}
	opts.Deliver = func(res Result) { r.results <- res }
	r.Prober = NewProber(target, opts)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// next returns the next Result.
func (r *running) next() Result {
	r.t.Helper()
	select {
	case res := <-r.results:
		return res
	case <-time.After(patience):
		r.t.Fatalf("nothing delivered; %+v", r.Stats())
	}
	panic("unreachable")
}

// change returns the next Result with a changed verdict, which must be want.
func (r *running) change(want Verdict) Result {
	r.t.Helper()
	for {
		if res := r.next(); res.Changed {
			if res.Verdict != want {
				r.t.Fatalf("verdict %v (%v), want %v", res.Verdict, res.Err, want)
			}
			return res
		}
	}
}

// until waits until ok accepts the counters.
func (r *running) until(what string, ok func(Stats) bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok(r.Stats()) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never saw %s; %+v", what, r.Stats())
		}
		time.Sleep(time.Millisecond)
	}
}
