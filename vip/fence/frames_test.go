package fence

import (
	"encoding/binary"
	"net/netip"
)

// Frames made by hand, each as one machine would send it.

var (
	macA = []byte{2, 0, 0, 0, 0, 0xa}
	macB = []byte{2, 0, 0, 0, 0, 0xb}
)

func etherFrame(kind uint16, payload []byte, tags ...uint16) []byte {
	f := append(append([]byte{}, macB...), macA...)
	for i, tag := range tags {
		f = binary.BigEndian.AppendUint16(f, tag)
		f = binary.BigEndian.AppendUint16(f, uint16(100+i))
	}
	f = binary.BigEndian.AppendUint16(f, kind)
	return append(f, payload...)
}

func arpPacket(op uint16, sender, target netip.Addr) []byte {
	p := []byte{0, 1, 8, 0, 6, 4}
	p = binary.BigEndian.AppendUint16(p, op)
	p = append(append(p, macA...), sender.AsSlice()...)
	return append(append(p, make([]byte, 6)...), target.AsSlice()...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func ipv4Packet(from, to netip.Addr, payload int) []byte {
	p := []byte{0x45, 0}
	p = binary.BigEndian.AppendUint16(p, uint16(20+8+payload))
	p = append(p, 0, 0, 0, 0, 64, 17, 0, 0)
	p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	return append(append(p, 0x13, 0xc4, 0x13, 0xc4, 0, byte(8+payload), 0, 0), make([]byte, payload)...)
}

func ipv6Packet(next byte, from, to netip.Addr, payload []byte) []byte {
	p := []byte{0x60, 0, 0, 0}
	p = binary.BigEndian.AppendUint16(p, uint16(len(payload)))
	p = append(p, next, 255)
	p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	return append(p, payload...)
}

// neighbour builds a solicitation (135) or an advertisement (136).
func neighbour(kind byte, from, to, target netip.Addr) []byte {
	body := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	return ipv6Packet(58, from, to, body)
}
