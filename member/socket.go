package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is the buffer size asked of the kernel, so that a burst of garbage does
// not push out heartbeats before they are read.
const receiveBuffer = 2 << 20

// path is one local address: its socket and its listener.
type path struct {
	local netip.AddrPort
	udp   *net.UDPConn
	raw   syscall.RawConn
	tcp   *net.TCPListener
}

func openPath(local netip.AddrPort) (*path, error) {
	p := &path{local: local}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
	if err != nil {
		return nil, bindError("udp", local, err)
	}
	p.udp = udp
	_ = udp.SetReadBuffer(receiveBuffer) // capped by net.core.rmem_max, which is no error
	if p.raw, err = udp.SyscallConn(); err != nil {
		p.close()
		return nil, bindError("udp", local, err)
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", local.String())
	if err != nil {
		p.close()
		return nil, bindError("tcp", local, err)
	}
	p.tcp = l.(*net.TCPListener)
	return p, nil
}

func (p *path) close() {
	p.udp.Close()
	if p.tcp != nil {
		p.tcp.Close()
	}
}

func bindError(network string, local netip.AddrPort, err error) error {
	hint := "is the address on this machine?"
	if errors.Is(err, unix.EADDRINUSE) {
		hint = "does another agent run here?"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return fmt.Errorf("bind %s %s: %w (%s)", network, local, err, hint)
}

// outlet sends from one socket and never waits. It does not wait for room in the socket:
// a datagram that does not fit at once is lost like any other. It does not wait for
// memberlist either, whose writes hold the descriptor's write lock while they wait. Only
// one goroutine may use it.
type outlet struct {
	raw  syscall.RawConn
	send func(fd uintptr)
	b    []byte
	to   unix.Sockaddr
	err  error
}

func newOutlet(raw syscall.RawConn) *outlet {
	o := &outlet{raw: raw}
	o.send = func(fd uintptr) {
		o.err = unix.Sendto(int(fd), o.b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, o.to)
	}
	return o
}

// write sends b. Control takes a reference to the descriptor, but no lock.
func (o *outlet) write(b []byte, to unix.Sockaddr) error {
	o.b, o.to = b, to
	if err := o.raw.Control(o.send); err != nil {
		return err
	}
	return o.err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
