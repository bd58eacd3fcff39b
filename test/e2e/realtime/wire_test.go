package realtime

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/test/lab"
)

const agentPort = 7946

// wire records the agents' packets as they reach each node, with the kernel's time
// stamps.
type wire struct {
	mu      sync.Mutex
	packets map[path][]packet
	over    chan struct{}
	readers sync.WaitGroup
}

type path struct{ from, to string } // names of nodes

type packet struct {
	at   time.Duration // since the epoch
	size int
}

func listen(l *lab.Lab) (*wire, error) {
	w := &wire{packets: map[path][]packet{}, over: make(chan struct{})}
	names := map[netip.Addr]string{}
	for _, h := range l.Nodes() {
		names[h.Addr] = h.Name
	}
	for _, h := range l.Nodes() {
		fd := -1
		if err := h.Do(func() (err error) { fd, err = packetSocket(); return err }); err != nil {
			w.close()
			return nil, err
		}
		w.readers.Go(func() { w.read(fd, h.Name, names) })
	}
	return w, nil
}

func (w *wire) close() {
	close(w.over)
	w.readers.Wait()
}

func packetSocket() (int, error) {
	dev, err := net.InterfaceByName("eth0")
	if err != nil {
		return -1, err
	}
	protocol := lab.NetworkOrder(unix.ETH_P_IP)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return -1, err
	}
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	for _, step := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) },
		func() error { return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait) },
		func() error { return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: dev.Index}) },
	} {
		if err := step(); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func (w *wire) read(fd int, to string, names map[netip.Addr]string) {
	defer unix.Close(fd)
	frame, control := make([]byte, 2048), make([]byte, 256)
	for {
		select {
		case <-w.over:
			return
		default:
		}
		n, controlled, _, from, err := unix.Recvmsg(fd, frame, control, 0)
		if err != nil {
			continue // nothing for a while
		}
		link, is := from.(*unix.SockaddrLinklayer)
		if !is || link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if src, size, ok := agentPacket(frame[:n]); ok && names[src] != "" {
			p := path{names[src], to}
			w.mu.Lock()
			w.packets[p] = append(w.packets[p], packet{stamp(control[:controlled]), size})
			w.mu.Unlock()
		}
	}
}

// agentPacket returns the sender of an IPv4 packet to an agent's UDP port, and the size
// of its payload.
func agentPacket(b []byte) (src netip.Addr, size int, ok bool) {
	if len(b) < 28 || b[9] != unix.IPPROTO_UDP {
		return src, 0, false
	}
	udp := b[4*int(b[0]&15):]
	if len(udp) < 8 || binary.BigEndian.Uint16(udp[2:]) != agentPort {
		return src, 0, false
	}
	return netip.AddrFrom4([4]byte(b[12:16])), len(udp) - 8, true
}

func stamp(control []byte) time.Duration {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Duration(binary.NativeEndian.Uint64(m.Data))*time.Second + time.Duration(binary.NativeEndian.Uint64(m.Data[8:]))
		}
	}
	return 0
}

// beats returns the times between the heartbeats from one node to another in a period. It
// tells heartbeats from gossip by their size: on a path without answers to asks they are
// by far the most frequent packets, and sometimes grow by a byte.
func (w *wire) beats(p path, from, to time.Time) (between []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	count, usual := map[int]int{}, 0
	for _, k := range w.packets[p] {
		if count[k.size]++; count[k.size] > count[usual] {
			usual = k.size
		}
	}
	last := time.Duration(0)
	for _, k := range w.packets[p] {
		if k.size < usual-8 || k.size > usual+8 || k.at < time.Duration(from.UnixNano()) || k.at > time.Duration(to.UnixNano()) {
			continue
		}
		if last != 0 {
			between = append(between, k.at-last)
		}
		last = k.at
	}
	slices.Sort(between)
	return between
}
