package arp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// frameLength in bytes: Ethernet header and ARP for IPv4 (RFC 826). The driver
// pads to the minimum of the medium, as it does for the kernel's own ARP.
const frameLength = 14 + 28

type (
	hardwareAddr = [6]byte
	frame        = [frameLength]byte
)

var broadcast = hardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Operations of RFC 826.
const (
	operationRequest = 1
	operationReply   = 2
)

// announcement is the frame that says, in one of its two forms, that ip is at
// mac. Request: RFC 5227 §2.3, target hardware address zero. Reply: the target
// is the sender too; with another target a Linux neighbour ignores it for a
// second after its last update (measured).
func announcement(operation uint16, mac hardwareAddr, ip netip.Addr) (f frame) {
	copy(f[0:6], broadcast[:])
	copy(f[6:12], mac[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_ARP)
	binary.BigEndian.PutUint16(f[14:], 1) // hardware: Ethernet
	binary.BigEndian.PutUint16(f[16:], unix.ETH_P_IP)
	f[18], f[19] = 6, 4 // lengths of the two kinds of address
	binary.BigEndian.PutUint16(f[20:], operation)
	ip4 := ip.As4()
	copy(f[22:28], mac[:])
	copy(f[28:32], ip4[:])
	if operation == operationReply {
		copy(f[32:38], mac[:])
	}
	copy(f[38:42], ip4[:])
	return f
}
