package arp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	icmpEchoRequest = 8 // RFC 792
	icmpEchoReply   = 0
	echoLength      = 16   // ICMP header and a token
	fragment        = 1400 // payload of an IP packet, a multiple of 8 (RFC 791)
)

// ipFrame is an Ethernet frame with an IPv4 header (RFC 791), for payload to
// follow. The sender's MAC address is filled in when it is sent.
func ipFrame(mac hardwareAddr, from, to netip.Addr, protocol byte, id, offset uint16, more bool, payload []byte) []byte {
	f := make([]byte, 34, 34+len(payload))
	copy(f, mac[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[14:34]
	ip[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(ip[4:], id)
	if offset /= 8; more {
		offset |= 1 << 13
	}
	binary.BigEndian.PutUint16(ip[6:], offset)
	ip[8], ip[9] = 64, protocol
	src, dst := from.As4(), to.As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(0, ip))
	return append(f, payload...)
}

// udpFrames are the frames of one UDP datagram (RFC 768), in fragments where
// it is longer than one of them.
func udpFrames(mac hardwareAddr, from, to netip.AddrPort, id uint16, payload []byte) (frames [][]byte) {
	d := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(d, from.Port())
	binary.BigEndian.PutUint16(d[2:], to.Port())
	binary.BigEndian.PutUint16(d[4:], uint16(8+len(payload)))
	d = append(d, payload...)
	src, dst := from.Addr().As4(), to.Addr().As4()
	pseudo := sum16(sum16(uint32(unix.IPPROTO_UDP)+uint32(len(d)), src[:]), dst[:])
	c := internetChecksum(pseudo, d)
	if c == 0 {
		c = 0xffff // 0 would mean none
	}
	binary.BigEndian.PutUint16(d[6:], c)
	for at := 0; at < len(d); at += fragment {
		end := min(at+fragment, len(d))
		frames = append(frames, ipFrame(mac, from.Addr(), to.Addr(), unix.IPPROTO_UDP, id, uint16(at), end < len(d), d[at:end]))
	}
	return frames
}

// echoFrame is a ping that carries a token (RFC 792).
func echoFrame(mac hardwareAddr, from, to netip.Addr, id, seq uint16, token uint64) []byte {
	d := make([]byte, echoLength)
	d[0] = icmpEchoRequest
	binary.BigEndian.PutUint16(d[4:], id)
	binary.BigEndian.PutUint16(d[6:], seq)
	binary.BigEndian.PutUint64(d[8:], token)
	binary.BigEndian.PutUint16(d[2:], internetChecksum(0, d))
	return ipFrame(mac, from, to, unix.IPPROTO_ICMP, seq, 0, false, d)
}

// internetChecksum is the internet checksum (RFC 1071), onto a sum so far.
func internetChecksum(sofar uint32, b []byte) uint16 {
	s := sum16(sofar, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func sum16(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}
