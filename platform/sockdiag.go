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

// SocketDestroyed is the kernel's notice that it let go of a socket: closed, or
// its owner dead. The zero value means that notices were lost.
type SocketDestroyed struct {
	Protocol uint8          // unix.IPPROTO_UDP or unix.IPPROTO_TCP
	Local    netip.AddrPort // what it was bound to; IPv4-mapped addresses as IPv4
	Remote   netip.AddrPort // what it was connected to; port 0: listening, or not connected
}

// Served says whether the socket may have been the one that served addr: not
// connected, on that port, bound to that address or to all. [::] may have served
// IPv4 too. Lost notices (the zero value) may have been about anything.
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

// SocketWatch tells of sockets that died in one network namespace.
type SocketWatch struct {
	file    *os.File
	ports   []uint16
	stop    func() bool
	done    chan struct{}
	closing atomic.Bool

	mu  sync.Mutex
	err error
}

// WatchSocketsDestroyed subscribes to the destroy groups of NETLINK_SOCK_DIAG
// (Linux 4.3; no capability needed) in the calling thread's network namespace,
// and calls notify, from its own goroutine, for each notice that match accepts:
// 0.5-1.7 ms after a kill -9 of the owner (measured). Lost notices are told as a
// zero SocketDestroyed past match, at once and again when the backlog is read: the
// kernel does not say what it drops meanwhile.
//
// With ports given, a filter in the kernel passes only unconnected sockets bound
// to one of them (at most 200), so that short connections cost nothing here.
//
// It proves that notices of each protocol (unix.IPPROTO_UDP, IPPROTO_TCP) come, with
// a socket of its own, before it returns: a kernel without inet_diag, udp_diag or
// tcp_diag accepts the subscription and stays silent, which takes 3 s to find out.
// The same module tells of IPv4 and IPv6.
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

// Close ends the watch and waits for the last notify to return; so not from
// within notify. Safe to call twice.
func (w *SocketWatch) Close() {
	w.stop()
	w.closeFile()
	<-w.done
}

func (w *SocketWatch) closeFile() {
	w.closing.Store(true)
	w.file.Close()
}

// Done is closed when the watch has ended.
func (w *SocketWatch) Done() <-chan struct{} { return w.done }

// Err says why the watch ended; nil while it runs, and after Close or ctx.
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

// proofTime bounds the wait for the first notice: usually 1 ms, but the kernel tells
// of sockets one by one, and 200,000 dying each second make it late by up to 1 s
// (measured, 2 cores).
const proofTime = 3 * time.Second

// proofAgain is how soon another socket dies for the proof: while a backlog of
// others' is read, the kernel may drop a notice without a word.
const proofAgain = 100 * time.Millisecond

// proveNotices lets sockets die until there is word of one.
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

// readNoticeOf reads until one of these sockets is told of, or the deadline.
func readNoticeOf(file *os.File, buf []byte, protocol uint8, ports []uint16) (told bool, err error) {
	for !told {
		n, err := file.Read(buf)
		if errors.Is(err, unix.ENOBUFS) { // so many came that some were lost
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

// spendSocket opens a socket as a SIP server does and closes it. It is bound to the
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
		case errors.Is(err, unix.EAGAIN): // lost, and now the backlog is read
			lost = false
			notify(SocketDestroyed{})
		default: // lasting or not: polling goes on, and the owner may try again
			w.mu.Lock()
			w.err = fmt.Errorf("read notices of destroyed sockets: %w (a dead SIP server is noticed at the next probe)", err)
			w.mu.Unlock()
			w.stop()
			w.file.Close()
			return
		}
	}
}

// readNotices waits for a message; with poll it returns EAGAIN instead.
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

// wants repeats the kernel's filter for what had come before it was attached.
func (w *SocketWatch) wants(s SocketDestroyed) bool {
	return len(w.ports) == 0 || s.Remote.Port() == 0 && slices.Contains(w.ports, s.Local.Port())
}

const (
	inetDiagMsgLen   = 72 // struct inet_diag_msg, linux/inet_diag.h
	inetDiagProtocol = 10 // INET_DIAG_PROTOCOL; x/sys has no inet_diag
)

// parseSocketsDestroyed reads netlink messages holding struct inet_diag_msg each.
// What it cannot read it passes over.
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

// attachPortFilter drops in the kernel what is not about an unconnected socket on
// one of the ports. Offsets count from the netlink header: 16 bytes of it, then
// family, state, timer, retrans, sport, dport. A classic filter's half words are
// big-endian, as ports are there.
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
