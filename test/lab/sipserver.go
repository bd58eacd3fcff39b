package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ServeOptions runs a small stateless SIP server over UDP until ctx ends, and then
// returns nil. It is the PBX of the demo and of tests that need no real one. It answers
// 200 to OPTIONS, 481 to BYE and CANCEL and 501 to any other request. It does not answer
// ACK, responses and what is not SIP. Every answer names serverName in its Server header
// and leaves from the address that was asked (IP_PKTINFO), e.g. the VIP.
//
// addr is the address and port to listen on, e.g. 0.0.0.0:5060 or [::]:5060 (IPv6 only).
func ServeOptions(ctx context.Context, addr, serverName string) error {
	where, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("serve SIP on %q: want an address and a port, such as 0.0.0.0:5060", addr)
	}
	family := "udp4"
	if where.Addr().Is6() {
		family = "udp6"
	}
	conn, err := net.ListenUDP(family, net.UDPAddrFromAddrPort(where))
	if err != nil {
		return fmt.Errorf("serve SIP on %s: %w", addr, err)
	}
	defer conn.Close()
	if err := prepareSocket(conn, where.Addr().Is6()); err != nil {
		return fmt.Errorf("serve SIP on %s: ask for IP_PKTINFO: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	request, control := make([]byte, 65536), make([]byte, 256)
	var answer []byte
	for {
		n, cn, _, from, err := conn.ReadMsgUDPAddrPort(request, control)
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve SIP on %s: %w", addr, err)
		}
		var ok bool
		if answer, ok = Answer(answer[:0], request[:n], from, serverName); !ok {
			continue
		}
		// Sending fails if the address has gone in the meantime. The asker counts that as
		// lost.
		_, _, _ = conn.WriteMsgUDPAddrPort(answer, sameAddress(control[:cn]), from)
	}
}

// prepareSocket makes the kernel report the destination address of every datagram.
func prepareSocket(conn *net.UDPConn, ipv6 bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		// A large buffer, so that a moment without CPU time loses no request. Only root
		// may set it; without root the default stays.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		if ipv6 {
			failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
			return
		}
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	})
	return errors.Join(err, failed)
}

// sameAddress turns a request's control message into that of its answer, in place. The
// source becomes the address that was asked; the route decides the interface.
func sameAddress(control []byte) []byte {
	const head = unix.SizeofCmsghdr
	if len(control) < head+unix.SizeofInet4Pktinfo {
		return nil
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(control) >= head+unix.SizeofInet6Pktinfo {
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
		if !netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
			info.Ifindex = 0
		}
		return control[:unix.CmsgSpace(unix.SizeofInet6Pktinfo)]
	}
	if h.Level != unix.IPPROTO_IP || h.Type != unix.IP_PKTINFO {
		return nil
	}
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
	info.Ifindex = 0 // Spec_dst is the address asked, as received
	return control[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)]
}

// Answer appends the response to a request from an address; ok is false if the request
// gets no answer. Headers are copied as RFC 3261 8.2.6 demands: all Via, From, To (with a
// tag), Call-ID, CSeq. The topmost Via gets received and rport (RFC 3581).
func Answer(to, request []byte, from netip.AddrPort, serverName string) (response []byte, ok bool) {
	head, _, whole := bytes.Cut(request, []byte("\r\n\r\n"))
	lines := bytes.Split(head, []byte("\r\n"))
	method, version := startLine(lines[0])
	if !whole || method == "" || method == "ACK" || version != "SIP/2.0" {
		return to, false
	}
	status := "501 Not Implemented"
	switch method {
	case "OPTIONS":
		status = "200 OK"
	case "BYE", "CANCEL":
		status = "481 Call/Transaction Does Not Exist"
	}
	to = fmt.Appendf(to, "SIP/2.0 %s\r\n", status)
	var seen struct{ via, from, to, id, cseq bool }
	for _, line := range lines[1:] {
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			return to, false
		}
		value = bytes.TrimSpace(value)
		switch strings.ToLower(string(bytes.TrimSpace(name))) {
		case "via", "v":
			if !seen.via {
				value = withSource(value, from)
			}
			seen.via = true
			to = fmt.Appendf(to, "Via: %s\r\n", value)
		case "from", "f":
			seen.from = true
			to = fmt.Appendf(to, "From: %s\r\n", value)
		case "to", "t":
			seen.to = true
			to = fmt.Appendf(to, "To: %s", value)
			if !bytes.Contains(value, []byte(";tag=")) {
				to = fmt.Appendf(to, ";tag=%s", serverName)
			}
			to = append(to, "\r\n"...)
		case "call-id", "i":
			seen.id = true
			to = fmt.Appendf(to, "Call-ID: %s\r\n", value)
		case "cseq":
			seen.cseq = true
			to = fmt.Appendf(to, "CSeq: %s\r\n", value)
		}
	}
	to = fmt.Appendf(to, "Server: %s\r\nAllow: OPTIONS, BYE, CANCEL, ACK\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n", serverName)
	return to, seen.via && seen.from && seen.to && seen.id && seen.cseq
}

func startLine(line []byte) (method, version string) {
	words := bytes.Split(line, []byte(" "))
	if len(words) != 3 {
		return "", ""
	}
	return string(words[0]), string(words[2])
}

// withSource fills in an empty rport and adds the address that the request came from.
func withSource(via []byte, from netip.AddrPort) []byte {
	first, rest, more := bytes.Cut(via, []byte(","))
	params := bytes.Split(first, []byte(";"))
	var out []byte
	for i, p := range params {
		if i > 0 {
			out = append(out, ';')
		}
		if string(bytes.TrimSpace(p)) == "rport" {
			p = fmt.Appendf(nil, "rport=%d;received=%v", from.Port(), from.Addr().Unmap())
		}
		out = append(out, p...)
	}
	if more {
		out = append(append(out, ','), rest...)
	}
	return out
}
