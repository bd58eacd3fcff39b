package sipcheck

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"sipalive/platform/stalltest"
)

// TestOffPathAnswersNeverCount: an attacker sees every probe, but is not on the path. He
// sends perfect answers from another port and from another address. They must not count.
func TestOffPathAnswersNeverCount(t *testing.T) {
	at := ownAddress()
	var forgers []*net.UDPConn
	for _, from := range []*net.UDPAddr{{IP: at.Addr().AsSlice()}, {IP: net.IPv4(127, 0, 0, 1)}, {IP: net.IPv4(127, 0, 0, 9), Port: 5060}} {
		conn, err := net.ListenUDP("udp4", from)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		forgers = append(forgers, conn)
	}
	var s *server
	ready := make(chan struct{}) // closed when s is set
	s = serve(t, at, func(n int, r request) [][]byte {
		<-ready
		s.mu.Lock()
		to := net.UDPAddrFromAddrPort(s.from[n])
		s.mu.Unlock()
		for _, f := range forgers {
			f.WriteTo(reply(r, "200 OK"), to)
		}
		return nil
	})
	close(ready)
	p := launch(t, silent(s.addr), Options{})
	p.change(Silent)
	if st := p.Stats(); st.Answered != 0 || st.Malformed+st.Late != 0 {
		t.Fatalf("the kernel should not even hand them over: %+v", st)
	}
}

// TestGuessedAnswersNeverCount: an attacker can send from the server's own address, but
// sees no probe and guesses.
func TestGuessedAnswersNeverCount(t *testing.T) {
	for name, guess := range map[string]func(r request) (old, new string){
		"branch":  func(request) (string, string) { return "branch=z9hG4bK", "branch=z9hG4bK0" },
		"Call-ID": func(request) (string, string) { return "\r\nCall-ID: ", "\r\nCall-ID: 0" },
		"CSeq":    func(request) (string, string) { return "\r\nCSeq: 1 ", "\r\nCSeq: 2 " },
		"method":  func(request) (string, string) { return " OPTIONS\r\nContent", " INVITE\r\nContent" },
		"all":     func(r request) (string, string) { return r.header("Call-ID"), "1234" },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ownAddress(), func(_ int, r request) [][]byte {
				right := reply(r, "200 OK")
				old, new := guess(r)
				if !bytes.Contains(right, []byte(old)) {
					t.Errorf("no %q in %q", old, right)
				}
				return [][]byte{bytes.ReplaceAll(right, []byte(old), []byte(new))}
			})
			p := launch(t, silent(s.addr), Options{})
			p.change(Silent)
			if st := p.Stats(); st.Answered != 0 || st.Malformed+st.Late == 0 {
				t.Fatalf("%+v", st)
			}
		})
	}
}

// refuse forges the refusal of a packet from asker to at. It comes from another address.
func refuse(t testing.TB, asker, at netip.AddrPort) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Errorf("%v (needs CAP_NET_RAW)", err)
		return
	}
	defer unix.Close(fd)
	from, to := asker.Addr().As4(), at.Addr().As4()
	quoted := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, slices.Concat(from[:], to[:])...)
	quoted = binary.BigEndian.AppendUint16(quoted, asker.Port())
	quoted = binary.BigEndian.AppendUint16(quoted, at.Port())
	body, err := (&icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 3,
		Body: &icmp.DstUnreach{Data: append(quoted, 0, 8, 0, 0)}}).Marshal(nil)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 9}})
	}
	if err == nil {
		err = unix.Sendto(fd, body, 0, &unix.SockaddrInet4{Addr: from})
	}
	if err != nil {
		t.Error(err)
	}
}

// TestOneForgedRefusalDecidesNothing: an attacker who sees no probe has guessed the port
// from which one left. A second packet leaves at once from another port and decides: it
// is answered, or refused too.
func TestOneForgedRefusalDecidesNothing(t *testing.T) {
	for name, want := range map[string]Verdict{"the other packet is answered": Up, "both are refused": Refused} {
		t.Run(name, func(t *testing.T) {
			var s *server
			ready := make(chan struct{}) // closed when s is set
			s = serve(t, ownAddress(), func(n int, r request) [][]byte {
				<-ready
				s.mu.Lock()
				first, now := s.from[0], s.from[n]
				s.mu.Unlock()
				if n > 0 && want == Up {
					refuse(t, first, s.addr) // forging it again must not change anything
					return [][]byte{reply(r, "200 OK")}
				}
				refuse(t, now, s.addr)
				return nil
			})
			close(ready)
			target := quick(s.addr)
			target.Interval = time.Hour
			p := launch(t, target, Options{})
			res := p.change(want)
			t.Logf("after %v", res.At.Sub(res.Started))
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.from) != 2 || s.from[0] == s.from[1] { // a retransmission would come from the same port
				t.Errorf("asked from %v, want two packets from two ports", s.from)
			}
		})
	}
}

// TestRefusedByTwoPacketsThenByOne: Refused takes two refusals; for a port that is known
// to refuse, one is enough.
func TestRefusedByTwoPacketsThenByOne(t *testing.T) {
	target := quick(ownAddress())
	target.Interval = time.Hour
	p := launch(t, target, Options{})
	p.change(Refused)
	if st := p.Stats(); st.Sent != 2 || st.Refused != 1 {
		t.Errorf("at first: %+v", st)
	}
	p.ProbeNow()
	if res := p.next(); res.Outcome != PortRefused {
		t.Errorf("%+v", res)
	}
	if st := p.Stats(); st.Sent != 3 || st.Refused != 2 {
		t.Errorf("once more: %+v", st)
	}
}

// TestSuspicionIsProbedPerInterval: during a suspicion one probe leaves per interval, so
// fall probes end after fall*interval + timeout.
func TestSuspicionIsProbedPerInterval(t *testing.T) {
	s := serve(t, ownAddress(), mute)
	target := silent(s.addr)
	target.Timeout, target.Interval, target.Fall = 800*time.Millisecond, 200*time.Millisecond, 3
	stood, start := stalltest.Watch(t), time.Now()
	p := launch(t, target, Options{})
	p.change(Silent)
	took, least := time.Since(start), target.Timeout+2*target.Interval
	t.Logf("silent after %v, of which the machine stood still for %v", took, stood())
	if took < least || took > least+target.Timeout+stood() {
		t.Fatalf("silent after %v, want %v and a little", took, least)
	}
}

func TestSlowAnswersCountWithinTheirOwnTimeout(t *testing.T) {
	const slow = 300 * time.Millisecond
	var n atomic.Int32
	var s *server
	ready := make(chan struct{}) // closed when s is set
	s = serve(t, ownAddress(), func(i int, r request) [][]byte {
		<-ready
		s.mu.Lock()
		to := s.from[i]
		s.mu.Unlock()
		if n.Add(1) > 2 { // both packets of the first probe get no answer
			time.AfterFunc(slow, func() { s.conn.WriteToUDPAddrPort(reply(r, "200 OK"), to) })
		}
		return nil
	})
	close(ready)
	target := silent(s.addr)
	target.Timeout, target.Interval, target.Fall = 800*time.Millisecond, 200*time.Millisecond, 20
	p := launch(t, target, Options{})
	p.next() // the suspicion
	res := p.change(Up)
	if res.RTT < slow || p.Stats().Answered == 0 {
		t.Fatalf("%+v, %+v", res, p.Stats())
	}
}

// TestHesitation: a prober that waits long for an answer calls Hesitates once, and not
// again soon. The call comes early enough for another node's prober. Even if the server
// died right after the probe before, the other prober's whole timeout ends within
// fall*interval + timeout + 300 ms of that.
func TestHesitation(t *testing.T) {
	for _, c := range []struct {
		timeout, interval time.Duration
		fall              int
		want              time.Duration
	}{
		{400 * time.Millisecond, 200 * time.Millisecond, 3, 200 * time.Millisecond},
		{2 * time.Second, 200 * time.Millisecond, 3, 500 * time.Millisecond},
		{2 * time.Second, 200 * time.Millisecond, 1, 200 * time.Millisecond},
		{2 * time.Second, 50 * time.Millisecond, 3, 300 * time.Millisecond},
	} {
		s := serve(t, ownAddress(), mute)
		target := Target{Node: "pbx1", Name: "main", Address: s.addr, Timeout: c.timeout, Interval: c.interval, Fall: c.fall}
		var now, began time.Time
		var told []time.Duration
		p := NewProber(target, Options{Now: func() time.Time { return now }, Hesitates: func(started time.Time) {
			if started != began {
				t.Errorf("%+v: told of a probe of %v, not %v", c, started, began)
			}
			told = append(told, now.Sub(began))
		}})
		defer p.link.close()
		probe := func(v Verdict) {
			p.judge = judge{fall: c.fall, rise: 2, verdict: v}
			now, p.nextAt = now.Add(time.Second), now.Add(time.Second)
			began = now
			for p.step(now); p.flight.active; p.step(now) {
				now = p.due()
				if now.Equal(p.flight.deadline) {
					break
				}
			}
			p.flight = flight{}
		}
		now = time.Now()
		probe(Unknown)
		probe(Silent)
		if len(told) > 0 {
			t.Errorf("%+v: told of what is not up", c)
		}
		probe(Up)
		probe(Up)
		if len(told) != 1 || told[0] != c.want {
			t.Errorf("%+v: told after %v, want once after %v", c, told, c.want)
		}
		if d := told[0]; c.interval+d+c.timeout > time.Duration(c.fall)*c.interval+c.timeout+300*time.Millisecond {
			t.Errorf("%+v: %v is too late for the others", c, d)
		}
		now = now.Add(hintGap)
		if probe(Up); len(told) != 2 {
			t.Errorf("%+v: told %d times, want once more", c, len(told))
		}
	}
}

// TestRetransmissionsAreThoseOfARequest: a probe over UDP is repeated after T1, 2*T1,
// ..., at most T2, within its timeout.
func TestRetransmissionsAreThoseOfARequest(t *testing.T) {
	for timeout, want := range map[time.Duration][]time.Duration{
		400 * time.Millisecond: {200},
		time.Second:            {500},
		2 * time.Second:        {500, 1500},
		32 * time.Second:       {500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500},
	} {
		s := serve(t, ownAddress(), mute)
		target := quick(s.addr)
		target.Timeout, target.Interval, target.Fall = timeout, 24*time.Hour, 1
		p := NewProber(target, Options{})
		defer p.link.close()
		start := time.Now()
		p.nextAt = start
		p.step(start)
		var got []time.Duration
		for at := start; ; {
			if at = p.due(); at.After(start.Add(timeout)) || !p.flight.active {
				break
			}
			before := p.Stats().Sent
			p.step(at)
			if p.Stats().Sent != before {
				got = append(got, at.Sub(start)/time.Millisecond)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%v: again after %v ms, want %v", timeout, got, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%v: again after %v ms, want %v", timeout, got, want)
				break
			}
		}
	}
}
