package sipcheck

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNothing means that no datagram was waiting.
var errNothing = errors.New("nothing to read")

// socket is one UDP socket connected to the target.
type socket struct {
	*net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
}

// openSocket binds to local, with any port, and connects to remote. If local is invalid,
// the kernel chooses the address, which may be a VIP.
func openSocket(local netip.Addr, remote netip.AddrPort) (*socket, error) {
	var from *net.UDPAddr
	if local.IsValid() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(remote))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	mine := localOf(conn.LocalAddr().(*net.UDPAddr).AddrPort())
	if mine == remote {
		// The kernel chose the target's own port by chance. We would hold the port that
		// the server wants, and talk to ourselves.
		conn.Close()
		return nil, errSelf(remote)
	}
	return &socket{UDPConn: conn, raw: raw, local: mine}, nil
}

func errSelf(remote netip.AddrPort) error {
	return fmt.Errorf("connect to %s: the kernel drew that very port for us", remote)
}

// readWaiting reads what has already arrived, whatever the read deadline is.
// net.Conn.Read does not read once the deadline has passed. So a prober that was starved
// of CPU would report silence while the answer lies in its own buffer.
func (s *socket) readWaiting(b []byte) (int, error) {
	var n int
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
	}); cerr != nil {
		return 0, cerr
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return 0, errNothing
	}
	return n, err
}
