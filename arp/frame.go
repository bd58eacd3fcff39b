package arp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// frameLength is the Ethernet header plus ARP for IPv4 (RFC 826), in bytes. The driver
// pads the frame to the minimum of the medium, as it does for the kernel's own ARP.
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

// announcement builds one of the two forms of the frame that says that ip is at mac.
// Request form: the target hardware address is zero (RFC 5227 §2.3). Reply form: the
// target hardware address is the sender's. With another target a Linux neighbour ignores
// the reply for a second after its last update (measured).
func announcement(operation uint16, mac hardwareAddr, ip netip.Addr) frame {
	var target hardwareAddr
	if operation == operationReply {
		target = mac
	}
	return arpFrame(operation, broadcast, mac, ip, target, ip)
}

// question builds an ARP request for target with from as its sender. Whoever answers
// learns that from is at mac. If from is unspecified, the request is a probe (RFC 5227
// 2.1.1), from which nobody learns anything.
func question(to, mac hardwareAddr, from, target netip.Addr) frame {
	return arpFrame(operationRequest, to, mac, from, hardwareAddr{}, target)
}

func arpFrame(operation uint16, to, mac hardwareAddr, sender netip.Addr, targetMAC hardwareAddr, target netip.Addr) (f frame) {
	copy(f[0:6], to[:])
	copy(f[6:12], mac[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_ARP)
	binary.BigEndian.PutUint16(f[14:], 1) // hardware: Ethernet
	binary.BigEndian.PutUint16(f[16:], unix.ETH_P_IP)
	f[18], f[19] = 6, 4 // lengths of a hardware address and of a protocol address
	binary.BigEndian.PutUint16(f[20:], operation)
	senderIP, targetIP := sender.As4(), target.As4()
	copy(f[22:28], mac[:])
	copy(f[28:32], senderIP[:])
	copy(f[32:38], targetMAC[:])
	copy(f[38:42], targetIP[:])
	return f
}

// arpClaim reads a claim from an ARP packet without its Ethernet header: ip is at mac.
// asks is the address that a request asks for. A probe claims nothing.
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
