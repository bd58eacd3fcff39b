package phones

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Waker sends keepalives in one VIP's name.
type Waker struct {
	vip netip.Addr
	fd  int
}

// segmentLen is a TCP header without options.
const segmentLen = 20

// OpenWaker opens a Waker. It needs CAP_NET_RAW, and the VIP bound on this host.
func OpenWaker(vip netip.Addr) (*Waker, error) {
	family := unix.AF_INET
	if vip.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("open a raw TCP socket: %w (needs CAP_NET_RAW)", err)
	}
	w := &Waker{vip, fd}
	if err := w.prepare(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return w, nil
}

// prepare attaches a filter that refuses everything, because the socket would otherwise
// get a copy of all TCP that comes for the VIP. It binds the socket, so that the kernel
// chooses routes for packets from the VIP.
func (w *Waker) prepare() error {
	refuse := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	if err := unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &refuse}); err != nil {
		return fmt.Errorf("attach a filter to a raw TCP socket: %w", err)
	}
	if err := unix.Bind(w.fd, sockaddr(w.vip)); err != nil {
		return fmt.Errorf("bind a raw TCP socket to %s: %w (is it bound on this host?)", w.vip, err)
	}
	return nil
}

// Wake sends one keepalive and does not wait.
func (w *Waker) Wake(c Connection) error { return w.send(c, keepalive(w.vip, c)) }

// Reset sends a reset if the numbers are known, and does not wait.
func (w *Waker) Reset(c Connection) error {
	if c.Seq == 0 && c.Ack == 0 {
		return nil
	}
	return w.send(c, reset(w.vip, c))
}

func (w *Waker) send(c Connection, segment [segmentLen]byte) error {
	if err := unix.Sendto(w.fd, segment[:], 0, sockaddr(c.Phone.Addr())); err != nil {
		return fmt.Errorf("wake %s for %s: %w", c.Phone, w.vip, err)
	}
	return nil
}

// Close closes the socket.
func (w *Waker) Close() { _ = unix.Close(w.fd) }

// keepalive builds the probe of RFC 9293 §3.8.4. Its number is one that the phone has
// already acknowledged: outside the phone's window, so the phone has to answer
// (§3.10.7.4). The answer finds no connection here, and the kernel resets it with the
// number that the phone itself named (§3.5.2).
//
// A NAT that tracks connections lets old numbers through and swallows numbers ahead of
// its window (Linux 6.18, measured; with the number 0, 18 of 60 got through). A phone
// that is not behind a NAT answers any number.
func keepalive(vip netip.Addr, c Connection) [segmentLen]byte {
	return segment(vip, c, c.Seq-1, flagACK)
}

// reset is for a phone whose stack drops a keepalive that lacks the timestamps the
// connection has (RFC 7323 §3.2); a reset may lack them. A reset counts only if nothing
// was said since the number was read (RFC 9293 §3.5.3), so it is no substitute for the
// keepalive.
func reset(vip netip.Addr, c Connection) [segmentLen]byte {
	return segment(vip, c, c.Seq, flagRST|flagACK)
}

const (
	flagRST = 1 << 2
	flagACK = 1 << 4
)

func segment(vip netip.Addr, c Connection, seq uint32, flags byte) (b [segmentLen]byte) {
	const (
		headerWords = segmentLen / 4 << 4
		window      = 1024
	)
	binary.BigEndian.PutUint16(b[0:], c.Port)
	binary.BigEndian.PutUint16(b[2:], c.Phone.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], c.Ack)
	b[12], b[13] = headerWords, flags
	binary.BigEndian.PutUint16(b[14:], window)
	binary.BigEndian.PutUint16(b[16:], checksum(vip, c.Phone.Addr(), b[:]))
	return b
}

// checksum is that of RFC 9293 §3.1, with the pseudo header (IPv6: RFC 8200 §8.1).
func checksum(from, to netip.Addr, segment []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), segment} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}
