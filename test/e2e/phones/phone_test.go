package phones

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"sipalive/test/lab"
)

// kind says how some phones connect.
type kind struct {
	name  string
	n     int
	from  netip.Addr
	vip   int
	tls   bool
	fixed uint16 // the first phone's port, then counting up; 0: the kernel chooses
}

// phone registers over TCP and sends nothing more until its connection ends. Then it
// connects again, as often as needed.
type phone struct {
	s    *site
	kind *kind
	port uint16
	mu   sync.Mutex
	conn net.Conn
	at   []time.Duration // when each answered registration came
}

// dialling limits how many phones connect at once: each needs a thread.
var dialling = make(chan struct{}, 32)

// phones starts the phones of a kind and waits until each is registered.
func (s *site) phones(k *kind) (all []*phone) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range k.n {
		p := &phone{s: s, kind: k}
		if k.fixed != 0 {
			p.port = k.fixed + uint16(i)
		}
		all = append(all, p)
		wg.Go(func() { p.live(ctx) })
	}
	s.t.Cleanup(func() {
		cancel()
		for _, p := range all {
			p.hangUp()
		}
		wg.Wait()
	})
	s.await(k.name+" registered", func(context.Context) error {
		for i, p := range all {
			if p.registered(0) == 0 {
				return fmt.Errorf("phone %d is not", i)
			}
		}
		return nil
	})
	return all
}

func (p *phone) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
	}
}

func (p *phone) live(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := p.dial(ctx)
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.conn = c
		p.mu.Unlock()
		over := net.Conn(c)
		if p.kind.tls {
			over = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // any PBX will do
		}
		if ctx.Err() == nil && p.register(over) == nil {
			_, _ = over.Read(make([]byte, 1)) // until the connection ends
		}
		c.Close()
	}
}

func (p *phone) dial(ctx context.Context) (c net.Conn, err error) {
	dialling <- struct{}{}
	defer func() { <-dialling }()
	port := uint16(plainPort)
	if p.kind.tls {
		port = tlsPort
	}
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.kind.from, p.port))}
	err = p.s.Phone().Do(func() error {
		c, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(p.s.VIPs[p.kind.vip], port).String())
		return err
	})
	return c, err
}

// register sends a line and waits for its answer.
func (p *phone) register(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("REGISTER\n")); err != nil {
		return err
	}
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Time{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = append(p.at, lab.Now())
	return nil
}

// registered returns when the phone first registered after a moment, 0 if it has not.
func (p *phone) registered(after time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.at {
		if at > after {
			return at
		}
	}
	return 0
}
