package platform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers from linux/inet_diag.h and net/tcp_states.h.
const (
	inetDiagReqLen      = 56 // struct inet_diag_req_v2
	inetDiagReqBytecode = 1  // INET_DIAG_REQ_BYTECODE
	bytecodeJump        = 1  // INET_DIAG_BC_JMP
	bytecodeSource      = 7  // INET_DIAG_BC_S_COND
	tcpEstablished      = 1
)

// maxBytecode is the longest filter that the kernel's 16-bit jumps can cross.
const maxBytecode = 1<<16 - 8

// EstablishedTCP calls each for every established TCP connection of the calling
// goroutine's network namespace whose local address is in at, in the kernel's order. An
// IPv4 connection of an IPv6 socket is reported with plain IPv4 addresses. Like
//
//	ss -Htn state established src ADDRESS
//
// It needs no capability. The kernel walks its whole table, and does so twice if at has
// an IPv4 address, because such a connection may belong to an IPv6 socket. Connections
// that come or go meanwhile may be missing.
func EstablishedTCP(at []netip.Addr, each func(local, remote netip.AddrPort)) error {
	families := map[uint8]bool{}
	for _, a := range at {
		families[unix.AF_INET6] = true
		if a.Unmap().Is4() {
			families[unix.AF_INET] = true
		}
	}
	code, err := sourceBytecode(at)
	if err != nil {
		return fmt.Errorf("list TCP connections: %w", err)
	}
	for family := range families {
		request := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		head := make([]byte, inetDiagReqLen)
		head[0], head[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(head[4:], 1<<tcpEstablished)
		request.AddRawData(append(head, code...))
		err := request.ExecuteIter(unix.NETLINK_INET_DIAG, 0, func(m []byte) bool {
			if local, remote, ok := parseConnection(m); ok {
				each(local, remote)
			}
			return true
		})
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return fmt.Errorf("list TCP connections: %w", err)
		}
	}
	return nil
}

// DestroyTCP ends one established TCP connection of the calling goroutine's network
// namespace as a reset would: its owner reads ECONNABORTED. Like
//
//	ss -K src LOCAL dst REMOTE
//
// It is no error if there is no such connection. It needs CAP_NET_ADMIN, and a kernel
// with CONFIG_INET_DIAG_DESTROY (Linux 4.5).
func DestroyTCP(local, remote netip.AddrPort) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	b := make([]byte, inetDiagReqLen)
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	if local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpEstablished)
	binary.BigEndian.PutUint16(b[8:], local.Port())
	binary.BigEndian.PutUint16(b[10:], remote.Port())
	copy(b[12:28], local.Addr().AsSlice())
	copy(b[28:44], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint64(b[48:], ^uint64(0)) // any cookie
	request.AddRawData(b)
	if _, err := request.Execute(unix.NETLINK_INET_DIAG, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("end the TCP connection of %s with %s: %w (needs CAP_NET_ADMIN)", remote, local, err)
	}
	return nil
}

func parseConnection(b []byte) (local, remote netip.AddrPort, ok bool) {
	if len(b) < inetDiagMsgLen || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return local, remote, false
	}
	local = netip.AddrPortFrom(diagAddress(b[0], b[8:24]), binary.BigEndian.Uint16(b[4:]))
	remote = netip.AddrPortFrom(diagAddress(b[0], b[24:40]), binary.BigEndian.Uint16(b[6:]))
	return local, remote, true
}

// sourceBytecode returns the attribute that makes the kernel leave out connections at
// none of the addresses. For each address it has a comparison, followed by a jump to the
// end, which accepts. A jump past the end refuses.
func sourceBytecode(at []netip.Addr) ([]byte, error) {
	const jumpLen = 4
	total := 0
	for _, a := range at {
		total += 12 + len(a.Unmap().AsSlice()) + jumpLen
	}
	if total > maxBytecode {
		return nil, fmt.Errorf("%d addresses: more than a filter holds", len(at))
	}
	b := make([]byte, 4, 4+total)
	binary.NativeEndian.PutUint16(b, uint16(4+total))
	binary.NativeEndian.PutUint16(b[2:], inetDiagReqBytecode)
	for i, a := range at {
		ip := a.Unmap().AsSlice()
		size := 12 + len(ip)
		no := size + jumpLen
		if i == len(at)-1 {
			no += jumpLen // jumps past the end
		}
		b = append(b, bytecodeSource, byte(size))
		b = binary.NativeEndian.AppendUint16(b, uint16(no))
		family := byte(unix.AF_INET)
		if len(ip) == 16 {
			family = unix.AF_INET6
		}
		b = append(b, family, byte(8*len(ip)), 0, 0)
		b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // any port
		b = append(b, ip...)
		b = append(b, bytecodeJump, jumpLen)
		b = binary.NativeEndian.AppendUint16(b, uint16(4+total-len(b)+2))
	}
	return b, nil
}
