package realinput

import (
	endian "encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sipalive/test/lab"
)

// gossipPort is the default UDP and TCP port of heartbeats and gossip.
const gossipPort = 7946

// forger sends IPv4 packets with any source address from the router. It uses the router's
// own MAC, so the switch goes on sending to the true owners.
type forger struct{ fd int }

func (s *site) forge(t *testing.T) *forger {
	t.Helper()
	f := &forger{}
	must(t, s.Router().Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}))
	t.Cleanup(func() { unix.Close(f.fd) })
	return f
}

// udp sends a datagram. Checksum 0 means that there is none.
func (f *forger) udp(src, dst netip.AddrPort, payload []byte) error {
	b := ipv4(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, 8+len(payload))
	b = endian.BigEndian.AppendUint16(b, src.Port())
	b = endian.BigEndian.AppendUint16(b, dst.Port())
	b = endian.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0)
	return f.send(dst.Addr(), append(b, payload...))
}

// syn sends the first packet of a TCP connection; no further packet follows.
func (f *forger) syn(src, dst netip.AddrPort) error {
	const length = 20
	b := ipv4(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, length)
	segment := endian.BigEndian.AppendUint16(nil, src.Port())
	segment = endian.BigEndian.AppendUint16(segment, dst.Port())
	segment = append(segment, 1, 2, 3, 4, 0, 0, 0, 0, length<<2, 2, 0xff, 0xff, 0, 0, 0, 0)
	from, to := src.Addr().As4(), dst.Addr().As4()
	pseudo := append(append(from[:], to[:]...), 0, unix.IPPROTO_TCP, 0, length)
	endian.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	return f.send(dst.Addr(), append(b, segment...))
}

// ipv4 returns a header. The kernel fills in the fields that are 0 (raw(7)).
func ipv4(src, dst netip.Addr, protocol byte, payload int) []byte {
	from, to := src.As4(), dst.As4()
	b := []byte{0x45, 0, byte((20 + payload) >> 8), byte(20 + payload), 0, 0, 0, 0, 64, protocol, 0, 0}
	return append(append(b, from[:]...), to[:]...)
}

// checksum returns the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (f *forger) send(dst netip.Addr, packet []byte) error {
	return unix.Sendto(f.fd, packet, 0, &unix.SockaddrInet4{Addr: dst.As4()})
}

// datagram is a recorded datagram.
type datagram struct {
	src, dst netip.AddrPort
	payload  []byte
}

// recorder records what arrives at the nodes' gossip ports.
type recorder struct {
	mu   sync.Mutex
	list []datagram
	stop chan struct{}
	wg   sync.WaitGroup
}

// record listens on every node's network until end is called.
func (s *site) record(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{stop: make(chan struct{})}
	for _, h := range s.Nodes() {
		fd, err := tap(h)
		must(t, err)
		r.wg.Go(func() { r.listen(fd) })
	}
	return r
}

func tap(h *lab.Host) (fd int, err error) {
	err = h.Do(func() error {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(lab.NetworkOrder(unix.ETH_P_IP))); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000})
	})
	return fd, err
}

func (r *recorder) listen(fd int) {
	defer unix.Close(fd)
	b := make([]byte, 65536)
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_HOST {
			r.keep(b[:n])
		}
	}
}

func (r *recorder) keep(b []byte) {
	if len(b) < 28 || b[0] != 0x45 || b[9] != unix.IPPROTO_UDP || endian.BigEndian.Uint16(b[22:]) != gossipPort {
		return
	}
	length := int(endian.BigEndian.Uint16(b[24:]))
	if length < 8 || 20+length > len(b) {
		return
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	d := datagram{netip.AddrPortFrom(src, endian.BigEndian.Uint16(b[20:])), netip.AddrPortFrom(dst, gossipPort), append([]byte(nil), b[28:20+length]...)}
	r.mu.Lock()
	r.list = append(r.list, d)
	r.mu.Unlock()
}

// end stops the recording and returns the datagrams in order.
func (r *recorder) end() []datagram {
	close(r.stop)
	r.wg.Wait()
	return r.list
}
