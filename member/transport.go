package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's network, on the same sockets that our own messages use. It
// passes memberlist's packets on to memberlist and never waits for it.
type transport struct {
	port    uint16
	paths   []*path
	known   func(netip.Addr) bool // whether an address is a peer's
	label   string
	count   *counts
	packets chan *memberlist.Packet
	streams chan net.Conn

	ctx    context.Context // ends with the transport
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  map[*stream]bool // nil: shut down
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

const (
	gossipQueue = 256 // datagrams that may wait for memberlist
	maxStreams  = 64  // TCP connections at a time
)

func newTransport(cfg *Config, count *counts, known func(netip.Addr) bool) (*transport, error) {
	t := &transport{
		port: cfg.Port, known: known, label: cfg.Cluster, count: count,
		packets: make(chan *memberlist.Packet, gossipQueue),
		streams: make(chan net.Conn),
		conns:   map[*stream]bool{},
	}
	for _, a := range (Peer{cfg.Self, cfg.SelfAddress, cfg.SelfAddress2}).addresses() {
		p, err := openPath(netip.AddrPortFrom(a, cfg.Port))
		if err != nil {
			for _, open := range t.paths {
				open.close()
			}
			return nil, err
		}
		t.paths = append(t.paths, p)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

func (t *transport) start(receive func(*path)) {
	for _, p := range t.paths {
		t.wg.Go(func() { receive(p) })
		t.wg.Go(func() { t.accept(p) })
	}
}

// pass gives memberlist a copy of a datagram.
func (t *transport) pass(datagram []byte, from netip.AddrPort) {
	t.count.Gossip.Add(1)
	select {
	case t.packets <- &memberlist.Packet{
		Buf: append([]byte(nil), datagram...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now(),
	}:
	default:
		t.count.GossipDropped.Add(1)
	}
}

// pathTo returns the path whose address is of a's family.
func (t *transport) pathTo(a netip.Addr) *path {
	for _, p := range t.paths {
		if p.local.Addr().Is4() == a.Is4() {
			return p
		}
	}
	return t.paths[0]
}

// peer parses the address that memberlist wants to send to. It allows only peers'
// addresses, whatever return address a recorded ping contains.
func (t *transport) peer(addr string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return a, err
	}
	if a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()); !t.known(a.Addr()) || a.Port() != t.port {
		return a, fmt.Errorf("%s is no peer's address", addr)
	}
	return a, nil
}

// FinalAdvertiseAddr is part of memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.paths[0].local.Addr().AsSlice(), int(t.port), nil
}

// WriteTo is part of memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	a, err := t.peer(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.pathTo(a.Addr()).udp.WriteToUDPAddrPort(b, a)
	return time.Now(), err
}

// WriteToAddress is part of memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh is part of memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is part of memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialAddressTimeout is part of memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// DialTimeout is part of memberlist.Transport. It dials from the configured address,
// which the peer accepts. The dialling ends with the transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	a, err := t.peer(addr)
	if err != nil {
		return nil, err
	}
	from := t.pathTo(a.Addr()).local.Addr()
	d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	conn, err := d.DialContext(t.ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	s := t.adopt(conn, "")
	if s == nil {
		return nil, net.ErrClosed
	}
	return s, nil
}

// accept takes streams from peers, at most maxStreams at a time.
func (t *transport) accept(p *path) {
	for {
		conn, err := p.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say: the error lasts, so do not spin
			t.count.ReceiveErrors.Add(1)
			if !t.pause() {
				return
			}
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !t.known(from) {
			t.count.StreamsRefused.Add(1)
			conn.Close()
			continue
		}
		if s := t.adopt(conn, t.label); s != nil {
			select {
			case t.streams <- s:
			case <-t.ctx.Done():
				s.Close()
			}
		}
	}
}

// pause waits a little after an error that may last. It returns false after a shutdown.
func (t *transport) pause() bool {
	select {
	case <-time.After(50 * time.Millisecond):
		return true
	case <-t.ctx.Done():
		return false
	}
}

// Shutdown is part of memberlist.Transport. It ends every goroutine and connection of the
// transport.
func (t *transport) Shutdown() error {
	t.cancel()
	for _, p := range t.paths {
		p.close()
	}
	t.mu.Lock()
	conns := t.conns
	t.conns = nil
	t.mu.Unlock()
	for s := range conns {
		s.Conn.Close()
	}
	t.wg.Wait()
	return nil
}
