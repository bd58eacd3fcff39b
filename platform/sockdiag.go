package platform

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketDestroyed is the kernel's notice that it freed a socket, because the socket was
// closed or its owner died. The zero value means that notices were lost.
type SocketDestroyed struct {
	Protocol uint8          // unix.IPPROTO_UDP or unix.IPPROTO_TCP
	Local    netip.AddrPort // its local address; IPv4-mapped addresses as IPv4
	Remote   netip.AddrPort // the address it was connected to; port 0: listening, or not connected
}

// Served reports whether the socket may have been the one that served addr: not
// connected, on that port, and bound to that address or to all. A socket on [::] may have
// served IPv4 too. Lost notices (the zero value) may have been about any socket.
func (s SocketDestroyed) Served(protocol uint8, addr netip.AddrPort) bool {
	if s == (SocketDestroyed{}) {
		return true
	}
	if s.Protocol != protocol || s.Remote.Port() != 0 || s.Local.Port() != addr.Port() {
		return false
	}
	bound, asked := s.Local.Addr(), addr.Addr().Unmap().WithZone("")
	if bound.IsUnspecified() {
		return bound.Is6() || asked.Is4()
	}
	return bound == asked
}

// SocketWatch reports destroyed sockets of one network namespace.
type SocketWatch struct {
	file    *os.File
	ports   []uint16
	stop    func() bool
	done    chan struct{}
	closing atomic.Bool

	mu  sync.Mutex
	err error
}

// WatchSocketsDestroyed subscribes to the destroy groups of NETLINK_SOCK_DIAG (Linux 4.3;
// no capability needed) in the calling thread's network namespace. It calls notify, from
// its own goroutine, for each notice that match accepts: 0.5-1.7 ms after a kill -9 of
// the owner (measured). Lost notices are reported as a zero SocketDestroyed, without
// match. That happens at once, and again when the backlog has been read, because the
// kernel does not report what it drops meanwhile.
//
// With ports given, a filter in the kernel passes only unconnected sockets bound to one
// of them (at most 200), so that short connections cost nothing here.
//
// Before it returns, it proves for each protocol (unix.IPPROTO_UDP, IPPROTO_TCP) that
// notices come, with a socket of its own. A kernel without inet_diag, udp_diag or
// tcp_diag accepts the subscription and stays silent, which takes 3 s to find out. The
// same module reports IPv4 and IPv6.
//
// On error the caller goes on polling. The watch ends with ctx or Close.
func WatchSocketsDestroyed(ctx context.Context, protocols []uint8, ports []uint16,
	match func(SocketDestroyed) bool, notify func(SocketDestroyed)) (*SocketWatch, error) {
	const why = "watch for destroyed sockets: %w (without it a dead SIP server is noticed at the next probe)"
	fd, err := subscribeSockDiag()
	if err != nil {
		return nil, fmt.Errorf(why, err)
	}
	file := os.NewFile(uintptr(fd), "sock_diag")
	for _, protocol := range protocols {
		if err := proveNotices(file, protocol); err != nil {
			file.Close()
			return nil, fmt.Errorf(why, err)
		}
	}
	if len(ports) > 0 {
		if err := attachPortFilter(fd, ports); err != nil {
			file.Close()
			return nil, fmt.Errorf(why, err)
		}
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf(why, err)
	}
	w := &SocketWatch{file: file, ports: slices.Clone(ports), done: make(chan struct{})}
	w.stop = context.AfterFunc(ctx, w.closeFile)
	go w.run(raw, match, notify)
	return w, nil
}

// Close ends the watch and waits for the last notify to return. So it must not be called
// from within notify. It may be called twice.
func (w *SocketWatch) Close() {
	w.stop()
	w.closeFile()
	<-w.done
}

func (w *SocketWatch) closeFile() {
	w.closing.Store(true)
	w.file.Close()
}

// Done returns a channel that is closed when the watch has ended.
func (w *SocketWatch) Done() <-chan struct{} { return w.done }

// Err returns why the watch ended. It is nil while the watch runs, and after Close or
// ctx.
func (w *SocketWatch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func subscribeSockDiag() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, fmt.Errorf("netlink socket: %w", err)
	}
	groups := uint32(0)
	for _, g := range []int{unix.SKNLGRP_INET_TCP_DESTROY, unix.SKNLGRP_INET_UDP_DESTROY,
		unix.SKNLGRP_INET6_TCP_DESTROY, unix.SKNLGRP_INET6_UDP_DESTROY} {
		groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("join the destroy groups: %w", err)
	}
	return fd, nil
}

// proofTime bounds the wait for the first notice. The notice usually takes 1 ms. But the
// kernel reports sockets one by one, and 200,000 sockets dying each second delay it by up
// to 1 s (measured, 2 cores).
const proofTime = 3 * time.Second

// proofAgain is the time until another socket dies for the proof. While a backlog of
// other sockets' notices is read, the kernel may drop a notice silently.
const proofAgain = 100 * time.Millisecond

// proveNotices opens and closes sockets until a notice about one of them comes.
func proveNotices(file *os.File, protocol uint8) error {
	defer file.SetReadDeadline(time.Time{})
	var spent []uint16
	buf := make([]byte, 8192)
	for end := time.Now().Add(proofTime); ; {
		port, err := spendSocket(protocol)
		if err != nil {
			return err
		}
		spent = append(spent, port)
		file.SetReadDeadline(time.Now().Add(proofAgain))
		told, err := readNoticeOf(file, buf, protocol, spent)
		switch {
		case told:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case time.Now().After(end):
			name := map[uint8]string{unix.IPPROTO_UDP: "udp", unix.IPPROTO_TCP: "tcp"}[protocol]
			return fmt.Errorf("the kernel tells of no %s socket's end (is the module %s_diag there?)", strings.ToUpper(name), name)
		}
	}
}

// readNoticeOf reads until a notice about a socket on one of ports comes, or until the
// deadline.
func readNoticeOf(file *os.File, buf []byte, protocol uint8, ports []uint16) (told bool, err error) {
	for !told {
		n, err := file.Read(buf)
		if errors.Is(err, unix.ENOBUFS) { // so many notices came that some were lost
			return true, nil
		}
		if err != nil {
			return false, err
		}
		parseSocketsDestroyed(buf[:n], func(s SocketDestroyed) {
			told = told || s.Protocol == protocol && slices.Contains(ports, s.Local.Port())
		})
	}
	return true, nil
}

// spendSocket opens a socket like a SIP server's and closes it. It is bound to the
// wildcard address, the only one that exists in every namespace.
func spendSocket(protocol uint8) (port uint16, err error) {
	kind := unix.SOCK_DGRAM
	if protocol == unix.IPPROTO_TCP {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("test socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		return 0, fmt.Errorf("bind a test socket: %w", err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 1); err != nil {
			return 0, fmt.Errorf("listen on a test socket: %w", err)
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("test socket: %w", err)
	}
	return uint16(name.(*unix.SockaddrInet4).Port), nil
}

func (w *SocketWatch) run(raw syscall.RawConn, match func(SocketDestroyed) bool, notify func(SocketDestroyed)) {
	defer close(w.done)
	buf, lost := make([]byte, 8192), false
	for {
		n, err := readNotices(raw, buf, lost)
		switch {
		case err == nil:
			parseSocketsDestroyed(buf[:n], func(s SocketDestroyed) {
				if w.wants(s) && match(s) {
					notify(s)
				}
			})
		case w.closing.Load():
			return
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			notify(SocketDestroyed{})
		case errors.Is(err, unix.EAGAIN): // notices were lost, and now the backlog has been read
			lost = false
			notify(SocketDestroyed{})
		default: // whether it lasts or not: polling goes on, and the owner may try again
			w.mu.Lock()
			w.err = fmt.Errorf("read notices of destroyed sockets: %w (a dead SIP server is noticed at the next probe)", err)
			w.mu.Unlock()
			w.stop()
			w.file.Close()
			return
		}
	}
}

// readNotices waits for a message. With poll it returns EAGAIN instead of waiting.
func readNotices(raw syscall.RawConn, buf []byte, poll bool) (n int, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), buf); err != unix.EINTR {
				return poll || err != unix.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// wants applies the port filter again, to notices that came before it was attached.
func (w *SocketWatch) wants(s SocketDestroyed) bool {
	return len(w.ports) == 0 || s.Remote.Port() == 0 && slices.Contains(w.ports, s.Local.Port())
}

const (
	inetDiagMsgLen   = 72 // struct inet_diag_msg, linux/inet_diag.h
	inetDiagProtocol = 10 // INET_DIAG_PROTOCOL; x/sys has no inet_diag
)

// parseSocketsDestroyed reads netlink messages, each with a struct inet_diag_msg. It
// skips what it cannot read.
func parseSocketsDestroyed(b []byte, each func(SocketDestroyed)) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.SOCK_DIAG_BY_FAMILY {
			if s, ok := parseInetDiag(b[unix.NLMSG_HDRLEN:size]); ok {
				each(s)
			}
		}
		b = b[min(align4(size), len(b)):]
	}
}

func parseInetDiag(b []byte) (s SocketDestroyed, ok bool) {
	if len(b) < inetDiagMsgLen {
		return s, false
	}
	family := b[0]
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return s, false
	}
	s.Local = netip.AddrPortFrom(diagAddress(family, b[8:24]), binary.BigEndian.Uint16(b[4:]))
	s.Remote = netip.AddrPortFrom(diagAddress(family, b[24:40]), binary.BigEndian.Uint16(b[6:]))
	for attrs := b[inetDiagMsgLen:]; len(attrs) >= 4; {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < 4 || size > len(attrs) {
			break
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == inetDiagProtocol && size >= 5 {
			s.Protocol = attrs[4]
			return s, true
		}
		attrs = attrs[min(align4(size), len(attrs)):]
	}
	return s, false
}

func diagAddress(family byte, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

func align4(n int) int { return (n + 3) &^ 3 }

// attachPortFilter makes the kernel drop every notice that is not about an unconnected
// socket on one of the ports. Offsets count from the netlink header: 16 bytes of header,
// then family, state, timer, retrans, sport, dport. A classic filter's half words are
// big-endian, like the ports there.
func attachPortFilter(fd int, ports []uint16) error {
	const sport, dport = unix.NLMSG_HDRLEN + 4, unix.NLMSG_HDRLEN + 6
	if len(ports) > 200 { // jumps are 8 bits wide
		return fmt.Errorf("%d ports: more than the 200 a filter holds", len(ports))
	}
	n := uint8(len(ports))
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: dport},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: n + 1},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: sport},
	}
	for i, port := range ports {
		prog = append(prog, unix.SockFilter{
			Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(port), Jt: n - uint8(i)})
	}
	prog = append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff})
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: unsafe.SliceData(prog)}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog); err != nil {
		return fmt.Errorf("filter by port: %w", err)
	}
	return nil
}
