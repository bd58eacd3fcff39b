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
func announcement(operation uint16, mac hardwareAddr, ip netip.Addr) frame {
	var target hardwareAddr
	if operation == operationReply {
		target = mac
	}
	return arpFrame(operation, broadcast, mac, ip, target, ip)
}

// question asks who has target, in the name of from: whoever answers learns
// that from is at mac. With from unspecified it is a probe (RFC 5227 2.1.1),
// from which nobody learns anything.
func question(to, mac hardwareAddr, from, target netip.Addr) frame {
	return arpFrame(operationRequest, to, mac, from, hardwareAddr{}, target)
}

func arpFrame(operation uint16, to, mac hardwareAddr, sender netip.Addr, targetMAC hardwareAddr, target netip.Addr) (f frame) {
	copy(f[0:6], to[:])
	copy(f[6:12], mac[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_ARP)
	binary.BigEndian.PutUint16(f[14:], 1) // hardware: Ethernet
	binary.BigEndian.PutUint16(f[16:], unix.ETH_P_IP)
	f[18], f[19] = 6, 4 // lengths of the two kinds of address
	binary.BigEndian.PutUint16(f[20:], operation)
	senderIP, targetIP := sender.As4(), target.As4()
	copy(f[22:28], mac[:])
	copy(f[28:32], senderIP[:])
	copy(f[32:38], targetMAC[:])
	copy(f[38:42], targetIP[:])
	return f
}

// arpClaim reads from an ARP packet without its Ethernet header who says that
// which address is at which MAC, and whom it asks for. A probe claims nothing.
func arpClaim(p []byte) (ip, asks netip.Addr, mac hardwareAddr, ok bool) {
	if len(p) < frameLength-ethernetHeader || binary.BigEndian.Uint16(p) != 1 ||
		binary.BigEndian.Uint16(p[2:]) != unix.ETH_P_IP || p[4] != 6 || p[5] != 4 {
		return ip, asks, mac, false
	}
	ip = netip.AddrFrom4([4]byte(p[14:18]))
	if target := netip.AddrFrom4([4]byte(p[24:28])); binary.BigEndian.Uint16(p[6:]) == operationRequest && target != ip {
		asks = target
	}
	return ip, asks, hardwareAddr(p[8:14]), !ip.IsUnspecified()
}
