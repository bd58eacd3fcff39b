package arp

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// relayTap hears the frames of one protocol on every interface of the network
// namespace it was opened in. Being bound to none, it outlives them.
type relayTap struct {
	file *os.File
	raw  syscall.RawConn
}

func openRelayTap(protocol uint16, filter []bpf.Instruction) (*relayTap, error) {
	// Without a protocol nothing is heard before the filter is in place.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err = attachFilter(fd, filter); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	t := &relayTap{file: os.NewFile(uintptr(fd), "relay")}
	if t.raw, err = t.file.SyscallConn(); err != nil {
		t.file.Close()
		return nil, err
	}
	return t, nil
}

func attachFilter(fd int, filter []bpf.Instruction) error {
	if filter == nil {
		return nil
	}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
}

// echoReplies lets ICMP echo replies with this identifier pass, unfragmented
// (RFC 792).
func echoReplies(id uint16) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 14 + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMP, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 14 + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 6},
		bpf.LoadMemShift{Off: 14},
		bpf.LoadIndirect{Off: 14, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpEchoReply, SkipTrue: 3},
		bpf.LoadIndirect{Off: 14 + 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(id), SkipTrue: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	}
}

func (t *relayTap) close() error { return t.file.Close() }

// read hands every frame of another host to take until the tap is closed.
func (t *relayTap) read(take func(ifname string, frame []byte)) {
	buf := make([]byte, 2048)
	for {
		n, index, name := 0, 0, ""
		err := t.raw.Read(func(fd uintptr) bool {
			var from unix.Sockaddr
			var err error
			if n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err == unix.EAGAIN {
				return false
			}
			n = max(n, 0)
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype != unix.PACKET_OUTGOING {
				index = l.Ifindex
				name, _ = platform.InterfaceName(int(fd), index)
			}
			return true
		})
		if err != nil {
			return
		}
		if name != "" && n >= 14 {
			take(name, buf[:n])
		}
	}
}

// hearARP takes an ARP packet of another host.
func (r *Relay) hearARP(ifname string, f []byte) {
	if len(f) < frameLength || binary.BigEndian.Uint16(f[14:]) != 1 || binary.BigEndian.Uint16(f[16:]) != unix.ETH_P_IP || f[18] != 6 || f[19] != 4 {
		return
	}
	mac := hardwareAddr(f[22:28])
	sender, target := netip.AddrFrom4([4]byte(f[28:32])), netip.AddrFrom4([4]byte(f[38:42]))
	r.mu.Lock()
	l := r.links[ifname]
	if l != nil && sender == l.gateway {
		l.mac, l.heard = mac, r.o.Now()
	}
	gateway := l != nil && mac == l.mac
	r.mu.Unlock()
	switch {
	case l == nil || r.ours(mac):
	case r.o.Watch(sender) && !gateway: // a gateway may answer for all (local proxy ARP)
		r.o.Heard(HeardARP{Address: sender})
	case r.o.Watch(target) && target != sender && binary.BigEndian.Uint16(f[20:]) == operationRequest:
		r.o.Heard(HeardARP{Address: target, Asker: sender})
	}
}

// ours reports whether a MAC address is one of this node's links: a frame of
// our own that came back.
func (r *Relay) ours(mac hardwareAddr) bool {
	for _, name := range r.names() {
		var own hardwareAddr
		err := r.out.with(func(fd int) (err error) {
			own, err = platform.EthernetAddress(fd, name)
			return err
		})
		if err == nil && own == mac {
			return true
		}
	}
	return false
}

// hearEcho takes the answer to a ping. It counts once, and only where it comes
// from the gateway itself, to the address that asked: what an old holder passes
// on says where the router's table points, and it is not here.
func (r *Relay) hearEcho(ifname string, f []byte) {
	if len(f) < 34 {
		return
	}
	head := 14 + int(f[14]&0xf)*4
	if len(f) < head+echoLength {
		return
	}
	source, to := netip.AddrFrom4([4]byte(f[26:30])), netip.AddrFrom4([4]byte(f[30:34]))
	seq := binary.BigEndian.Uint16(f[head+6:])
	token := binary.BigEndian.Uint64(f[head+8:])
	r.mu.Lock()
	p := &r.pings[seq%uint16(len(r.pings))]
	l := r.links[ifname]
	good := l != nil && p.ifname == ifname && p.token == token && p.from == to && source == l.gateway && hardwareAddr(f[6:12]) == l.mac
	sent := p.sent
	if good {
		p.ifname = ""
	}
	r.mu.Unlock()
	if good {
		r.answered.Add(1)
		r.o.Answered(ifname, to, sent)
	}
}
