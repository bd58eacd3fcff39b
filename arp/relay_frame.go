package arp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	udpHeader      = 8
	fragmentHeader = 8    // IPv6 (RFC 8200 4.5)
	moreFragments  = 1    // flag in an offset that counts bytes (multiples of 8)
	fragmentMost   = 1200 // bytes of a datagram per frame, a multiple of 8; fits an MTU of 1280
)

// udpFrames builds the frames of one UDP datagram (RFC 768), in fragments if it is longer
// than fragmentMost. id identifies the datagram's fragments.
func udpFrames(mac, to hardwareAddr, from, target netip.AddrPort, id uint32, payload []byte) (frames [][]byte) {
	d := make([]byte, udpHeader, udpHeader+len(payload))
	binary.BigEndian.PutUint16(d, from.Port())
	binary.BigEndian.PutUint16(d[2:], target.Port())
	binary.BigEndian.PutUint16(d[4:], uint16(udpHeader+len(payload)))
	d = append(d, payload...)
	pseudo := sum16(uint32(unix.IPPROTO_UDP)+uint32(len(d)), append(from.Addr().AsSlice(), target.Addr().AsSlice()...))
	c := checksum(pseudo, d)
	if c == 0 {
		c = 0xffff // 0 would mean: no checksum
	}
	binary.BigEndian.PutUint16(d[6:], c)
	p := ipPacket{mac: mac, to: to, from: from.Addr(), target: target.Addr(), protocol: unix.IPPROTO_UDP, limit: hops}
	if len(d) <= fragmentMost {
		p.body = d
		return [][]byte{p.frame()}
	}
	for at := 0; at < len(d); at += fragmentMost {
		end := min(at+fragmentMost, len(d))
		offset := uint16(at)
		if end < len(d) {
			offset |= moreFragments
		}
		p.body = d[at:end]
		frames = append(frames, p.piece(id, offset))
	}
	return frames
}

// piece builds the frame of one fragment (RFC 791, RFC 8200).
func (p ipPacket) piece(id uint32, offset uint16) []byte {
	if p.target.Is4() {
		p.id, p.fragment = uint16(id), offset>>3|offset&moreFragments<<13
		return p.frame()
	}
	h := []byte{p.protocol, 0}
	h = binary.BigEndian.AppendUint16(h, offset)
	h = binary.BigEndian.AppendUint32(h, id)
	p.protocol, p.body = unix.IPPROTO_FRAGMENT, append(h, p.body...)
	return p.frame()
}
