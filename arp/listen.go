package arp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// heard is a packet that a machine on one of our links sent: a claim, or the answer to a
// ping.
type heard struct {
	index int          // of the interface
	from  hardwareAddr // the frame's sender
	claim bool
	ip    netip.Addr   // the address that is claimed, or that answered
	asks  netip.Addr   // claims: the address that the same packet asks for
	mac   hardwareAddr // where ip is said to be
	to    netip.Addr   // answers: the address that had asked
	echo  echo
}

// listener hears ARP, ND and the answers to our pings on every interface of the network
// namespace it was opened in. The kernel drops all other packets before they cost us
// anything: on a PBX nearly every packet belongs to a call.
type listener struct {
	sockets []*tap
}

// tap is one packet socket.
type tap struct {
	file  *os.File
	raw   syscall.RawConn
	parse func(packet []byte, h *heard) bool
}

func openListener(id uint16) (l *listener, err error) {
	l = &listener{}
	for _, t := range []struct {
		protocol uint16
		filter   []bpf.Instruction
		parse    func([]byte, *heard) bool
	}{
		{unix.ETH_P_ARP, nil, hearARP},
		{unix.ETH_P_IP, filter4(id), hearEcho},
		{unix.ETH_P_IPV6, filter6(id), hear6},
	} {
		s, err := openTap(t.protocol, t.filter)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("open packet socket for protocol %#04x: %w", t.protocol, explain(err))
		}
		s.parse = t.parse
		l.sockets = append(l.sockets, s)
	}
	return l, nil
}

func openTap(protocol uint16, filter []bpf.Instruction) (*tap, error) {
	// The socket is bound after the filter is in place, so that no packet gets past it.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if filter != nil {
		err = setFilter(fd, filter)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol)})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "packets")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &tap{file: file, raw: raw}, nil
}

func setFilter(fd int, program []bpf.Instruction) error {
	code, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// filter4 passes ICMP echo replies to id: protocol, no fragment, type, id.
func filter4(id uint16) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMP, SkipFalse: 8},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 6},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv4.ICMPTypeEchoReply), SkipFalse: 3},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(id), SkipFalse: 1},
		bpf.RetConstant{Val: packetMost},
		bpf.RetConstant{Val: 0},
	}
}

// filter6 passes neighbour solicitations and advertisements, and ICMPv6 echo replies to
// id.
func filter6(id uint16) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipFalse: 7},
		bpf.LoadAbsolute{Off: ipv6Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeNeighborSolicitation), SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeNeighborAdvertisement), SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ipv6.ICMPTypeEchoReply), SkipFalse: 3},
		bpf.LoadAbsolute{Off: ipv6Header + 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(id), SkipFalse: 1},
		bpf.RetConstant{Val: packetMost},
		bpf.RetConstant{Val: 0},
	}
}

// packetMost is how many bytes of a packet are read.
const packetMost = 512

func hearARP(p []byte, h *heard) (ok bool) {
	h.claim = true
	h.ip, h.asks, h.mac, ok = arpClaim(p)
	return ok
}

func hearEcho(p []byte, h *heard) (ok bool) {
	h.claim = false
	h.ip, h.to, h.echo, ok = echoReply(p)
	return ok
}

func hear6(p []byte, h *heard) (ok bool) {
	h.claim = true
	if h.ip, h.asks, h.mac, ok = ndClaim(p); ok {
		return true
	}
	return hearEcho(p, h)
}

// run hands every packet to take until the socket is closed. It drops packets that do not
// parse.
func (t *tap) run(take func(heard)) error {
	buffer := make([]byte, packetMost)
	for {
		h, ok, err := t.read(buffer)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			// An interface went down, or packets were lost: the socket still works.
		case err != nil:
			return err
		case ok:
			take(h)
		}
	}
}

func (t *tap) read(buffer []byte) (h heard, ok bool, err error) {
	var n int
	var from unix.Sockaddr
	waitErr := t.raw.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), buffer, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if waitErr != nil {
		return h, false, os.ErrClosed
	}
	if err != nil {
		return h, false, err
	}
	link, is := from.(*unix.SockaddrLinklayer)
	if !is || link.Hatype != unix.ARPHRD_ETHER || link.Halen != 6 {
		return h, false, nil
	}
	h.index, h.from = link.Ifindex, hardwareAddr(link.Addr[:6])
	ok = t.parse(buffer[:n], &h)
	// A switch floods frames to a MAC that it does not know, and a promiscuous interface
	// takes them. An answer that was not meant for us proves nothing.
	return h, ok && (h.claim || link.Pkttype == unix.PACKET_HOST), nil
}

func (l *listener) close() {
	for _, s := range l.sockets {
		s.file.Close()
	}
}
