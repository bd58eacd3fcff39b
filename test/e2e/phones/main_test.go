// Package phones has phones that are connected by TCP live through takeovers, directly
// and behind a NAT that tracks connections.
package phones

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "e2e/phones", &binary)) }

// patience bounds every wait for something that has to come.
const patience = 30 * time.Second

// port is where the nodes serve TCP, beside their PBX.
const port = 5062

type site struct {
	*cluster.Cluster
	t *testing.T
}

// start starts three nodes with a TCP server each, at rest.
func start(t *testing.T) *site {
	t.Helper()
	c, err := cluster.Start(cluster.Options{Binary: binary, VIPs: 1, TOML: "[timing]\nhold_down = \"0s\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{c, t}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range s.Nodes() {
				lines := strings.Split(strings.TrimSpace(s.Agent(i).Output()), "\n")
				t.Logf("%s:\n%s", s.Node(i).Name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
			}
		}
		s.must(c.Close())
	})
	for _, h := range s.Nodes() {
		s.serve(h)
	}
	for i := range s.Nodes() {
		s.await("every VIP held", func(ctx context.Context) error { return c.WaitHeld(ctx, i, "pbx1", "pbx2", "pbx3") })
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

func (s *site) await(what string, f func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := lab.WaitFor(ctx, what, func() error { return f(ctx) }); err != nil {
		s.t.Fatal(err)
	}
}

// nft loads rules into a host's namespace.
func (s *site) nft(h *lab.Host, rules string) {
	s.t.Helper()
	path := s.t.TempDir() + "/rules"
	s.must(os.WriteFile(path, []byte(rules), 0o644))
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if out, err := h.Run(ctx, "nft", "-f", path); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
}

// serve answers each line with itself, on connections that never end by themselves.
func (s *site) serve(h *lab.Host) {
	s.t.Helper()
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := c.Write([]byte(line)); err != nil {
						return
					}
				}
			})
		}
	})
	s.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// phone registers over TCP and says nothing more until its connection ends; then it
// connects anew, as often as it takes.
type phone struct {
	s    *site
	from netip.Addr
	mu   sync.Mutex
	conn net.Conn
	at   []time.Duration // of each registration that was answered
}

// phones starts n of them and waits until each is registered.
func (s *site) phones(n int, from netip.Addr) (all []*phone) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		p := &phone{s: s, from: from}
		all = append(all, p)
		wg.Go(func() { p.live(ctx) })
	}
	s.t.Cleanup(func() {
		cancel()
		for _, p := range all {
			p.mu.Lock()
			if p.conn != nil {
				p.conn.Close()
			}
			p.mu.Unlock()
		}
		wg.Wait()
	})
	s.await(fmt.Sprintf("phones at %s registered", from), func(context.Context) error {
		if slices.ContainsFunc(all, func(p *phone) bool { return p.registered(0) == 0 }) {
			return errors.New("not all")
		}
		return nil
	})
	return all
}

func (p *phone) live(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := p.dial()
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.conn = c
		p.mu.Unlock()
		if p.register() == nil {
			_, _ = c.Read(make([]byte, 1)) // until the connection ends
		}
		c.Close()
	}
}

// dial gives up and tries again soon: while nobody holds the VIP a SYN is lost, and
// its repetition would cost a second.
func (p *phone) dial() (c net.Conn, err error) {
	d := net.Dialer{Timeout: 200 * time.Millisecond, KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.from, 0))}
	err = p.s.Phone().Do(func() error {
		c, err = d.Dial("tcp4", netip.AddrPortFrom(p.s.VIPs[0], port).String())
		return err
	})
	return c, err
}

// register says a line and waits for its answer.
func (p *phone) register() error {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
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

// registered is when the phone first registered after a moment; 0: it has not.
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
