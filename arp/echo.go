package arp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Lengths in bytes of the headers built and read here.
const (
	ethernetHeader = 14
	ipv4Header     = 20
	ipv6Header     = 40
	icmpHeader     = 8
	nonceLength    = 8
)

// echo identifies one ping. The nonce keeps an answer to an earlier agent's ping, or a
// guess, from counting.
type echo struct {
	id, seq uint16
	nonce   uint64
}

// echoRequest builds the whole frame of one ping. The kernel would first ask for the
// gateway's MAC address in the VIP's name, and so repair the very table that is to be
// proven (measured).
func echoRequest(mac, to hardwareAddr, from, target netip.Addr, e echo) ([]byte, error) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(e.id), Seq: int(e.seq),
		Data: binary.BigEndian.AppendUint64(nil, e.nonce)}}
	var pseudo []byte
	if target.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
		pseudo = icmp.IPv6PseudoHeader(from.AsSlice(), target.WithZone("").AsSlice())
	}
	body, err := m.Marshal(pseudo)
	if err != nil {
		return nil, err
	}
	return packetFrame(mac, to, from, target, body), nil
}

// hops is the TTL of a new packet. ND packets need ndHops: a receiver accepts ND only at
// 255, which no packet from beyond the link can have (RFC 4861 7.1).
const (
	hops   = 64
	ndHops = 255
)

// packetFrame wraps ICMP into IP and Ethernet.
func packetFrame(mac, to hardwareAddr, from, target netip.Addr, body []byte) []byte {
	p := ipPacket{mac: mac, to: to, from: from, target: target, protocol: unix.IPPROTO_ICMP, limit: hops, fragment: dontFragment, body: body}
	if target.Is6() {
		if p.protocol = unix.IPPROTO_ICMPV6; isND(body[0]) {
			p.limit = ndHops
		}
	}
	return p.frame()
}

// ipPacket is an IP packet in an Ethernet frame.
type ipPacket struct {
	mac, to         hardwareAddr
	from, target    netip.Addr
	protocol, limit byte
	id, fragment    uint16 // IPv4: identification, flags and offset
	body            []byte
}

const dontFragment = 0x4000

func (p ipPacket) frame() []byte {
	f := make([]byte, 0, ethernetHeader+ipv6Header+len(p.body))
	f = append(append(f, p.to[:]...), p.mac[:]...)
	if p.target.Is4() {
		f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
		f = append(f, 0x45, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(ipv4Header+len(p.body)))
		f = binary.BigEndian.AppendUint16(f, p.id)
		f = binary.BigEndian.AppendUint16(f, p.fragment)
		f = append(f, p.limit, p.protocol, 0, 0)
		f = append(append(f, p.from.AsSlice()...), p.target.AsSlice()...)
		binary.BigEndian.PutUint16(f[ethernetHeader+10:], checksum(0, f[ethernetHeader:]))
		return append(f, p.body...)
	}
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(p.body)))
	f = append(f, p.protocol, p.limit)
	f = append(append(f, p.from.WithZone("").AsSlice()...), p.target.WithZone("").AsSlice()...)
	return append(f, p.body...)
}

// checksum returns the internet checksum (RFC 1071) of b, whose checksum field is zero,
// added to the sum sofar.
func checksum(sofar uint32, b []byte) uint16 {
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

// echoReply reads the answer to a ping from an IP packet without its Ethernet header. ok
// is false for everything else.
func echoReply(packet []byte) (from, to netip.Addr, e echo, ok bool) {
	from, to, body, ok := icmpOf(packet)
	want := byte(ipv4.ICMPTypeEchoReply)
	if from.Is6() {
		want = byte(ipv6.ICMPTypeEchoReply)
	}
	if !ok || len(body) < icmpHeader+nonceLength || body[0] != want || body[1] != 0 {
		return from, to, e, false
	}
	e.id, e.seq = binary.BigEndian.Uint16(body[4:]), binary.BigEndian.Uint16(body[6:])
	e.nonce = binary.BigEndian.Uint64(body[icmpHeader:])
	return from, to, e, true
}

// icmpOf takes apart an IP packet that has ICMP or ICMPv6 right behind its header.
func icmpOf(p []byte) (from, to netip.Addr, body []byte, ok bool) {
	switch {
	case len(p) >= ipv4Header && p[0]>>4 == 4:
		header, total := int(p[0]&0xf)*4, int(binary.BigEndian.Uint16(p[2:]))
		fragment := binary.BigEndian.Uint16(p[6:]) & 0x3fff // more fragments to come, or not the first
		if header < ipv4Header || total < header || total > len(p) || fragment != 0 || p[9] != unix.IPPROTO_ICMP {
			return from, to, nil, false
		}
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[header:total], true
	case len(p) >= ipv6Header && p[0]>>4 == 6:
		total := ipv6Header + int(binary.BigEndian.Uint16(p[4:]))
		if total > len(p) || p[6] != unix.IPPROTO_ICMPV6 {
			return from, to, nil, false
		}
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[ipv6Header:total], true
	}
	return from, to, nil, false
}
