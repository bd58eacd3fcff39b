package scale

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sipalive/test/lab"
)

// phone sends OPTIONS to many VIPs, to each every 10 ms until it has answered, from one
// socket in the phone's namespace.
type phone struct {
	conn *net.UDPConn

	mu    sync.Mutex
	since time.Duration                // older questions do not count
	first map[netip.Addr]time.Duration // when the earliest answered question left
}

const askEach = 10 * time.Millisecond

func newPhone(tb testing.TB, h *lab.Host) *phone {
	tb.Helper()
	p := &phone{}
	must(tb, h.Do(func() (err error) {
		p.conn, err = net.ListenUDP("udp4", nil)
		return err
	}))
	tb.Cleanup(func() { _ = p.conn.Close() })
	must(tb, p.conn.SetReadBuffer(4<<20))
	go p.hear()
	return p
}

// hear takes the answers. A question's number is the time when it left.
func (p *phone) hear() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if sent, ok := sentAt(string(buf[:n])); ok {
			p.mu.Lock()
			if at, known := p.first[from.Addr().Unmap()]; sent >= p.since && p.first != nil && (!known || sent < at) {
				p.first[from.Addr().Unmap()] = sent
			}
			p.mu.Unlock()
		}
	}
}

func sentAt(answer string) (time.Duration, bool) {
	var ns int64
	for i := 0; i+8 < len(answer); i++ {
		if answer[i] == '\n' && answer[i+1:i+9] == "Call-ID:" {
			_, err := fmt.Sscanf(answer[i+9:], "%d", &ns)
			return time.Duration(ns), err == nil
		}
	}
	return 0, false
}

// until asks all VIPs, each until it has answered. It returns when the first question
// left that each VIP answered.
func (p *phone) until(tb testing.TB, vips []netip.Addr, limit time.Duration) map[netip.Addr]time.Duration {
	tb.Helper()
	p.mu.Lock()
	p.first, p.since = make(map[netip.Addr]time.Duration, len(vips)), lab.Now()
	p.mu.Unlock()
	tick := time.NewTicker(askEach)
	defer tick.Stop()
	for end := lab.Now() + limit; ; <-tick.C {
		missing := 0
		for _, v := range vips {
			p.mu.Lock()
			_, answered := p.first[v]
			p.mu.Unlock()
			if !answered {
				missing++
				p.ask(tb, v)
			}
		}
		if missing == 0 {
			break
		}
		if lab.Now() > end {
			tb.Fatalf("%d of %d VIPs do not answer within %v", missing, len(vips), limit)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}

func (p *phone) ask(tb testing.TB, v netip.Addr) {
	tb.Helper()
	now := lab.Now()
	text := fmt.Sprintf("OPTIONS sip:%s SIP/2.0\r\nVia: SIP/2.0/UDP phone;branch=z9hG4bK%d\r\nFrom: <sip:phone>;tag=1\r\nTo: <sip:%s>\r\n"+
		"Call-ID: %d\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", v, now, v, now)
	if _, err := p.conn.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(v, 5060)); err != nil {
		tb.Fatalf("ask %v: %v", v, err)
	}
}
