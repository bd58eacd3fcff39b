package arp

import (
	"net/netip"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

// allNodes is the destination of unsolicited advertisements (RFC 4861 7.2.6).
var allNodes = netip.MustParseAddr("ff02::1")

func isND(icmpType byte) bool {
	return icmpType == byte(ipv6.ICMPTypeNeighborSolicitation) || icmpType == byte(ipv6.ICMPTypeNeighborAdvertisement)
}

// multicastMAC returns the MAC address of an IPv6 multicast group (RFC 2464 7).
func multicastMAC(group netip.Addr) hardwareAddr {
	ip := group.As16()
	return hardwareAddr{0x33, 0x33, ip[12], ip[13], ip[14], ip[15]}
}

// solicitedNode returns the group that every node with addr listens to (RFC 4291 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	ip := addr.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: ip[13], 14: ip[14], 15: ip[15]})
}

// advertisement builds the unsolicited neighbour advertisement that says that ip is at
// mac. It overrides what the neighbours knew before (RFC 4861 7.2.6).
func advertisement(mac hardwareAddr, ip netip.Addr) ([]byte, error) {
	body, err := ndp.MarshalMessageChecksum(&ndp.NeighborAdvertisement{Override: true, TargetAddress: ip,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}}}, ip, allNodes)
	if err != nil {
		return nil, err
	}
	return packetFrame(mac, multicastMAC(allNodes), ip, allNodes, body), nil
}

// solicitation builds a neighbour solicitation for target with from as its sender.
// Whoever answers learns that from is at mac. If to is set, the frame goes to that MAC
// alone.
func solicitation(mac hardwareAddr, from netip.Addr, to *hardwareAddr, target netip.Addr) ([]byte, error) {
	target = target.WithZone("")
	group := solicitedNode(target)
	destination, frameTo := group, multicastMAC(group)
	if to != nil {
		destination, frameTo = target, *to
	}
	body, err := ndp.MarshalMessageChecksum(&ndp.NeighborSolicitation{TargetAddress: target,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}}}, from, destination)
	if err != nil {
		return nil, err
	}
	return packetFrame(mac, frameTo, from, destination, body), nil
}

// ndClaim reads a claim from an IPv6 packet: ip is at mac. asks is the address that a
// solicitation asks for. A solicitation from the unspecified address claims nothing: it
// is duplicate address detection.
func ndClaim(packet []byte) (ip, asks netip.Addr, mac hardwareAddr, ok bool) {
	from, _, body, ok := icmpOf(packet)
	if !ok || !from.Is6() || packet[7] != ndHops || !isND(body[0]) {
		return ip, asks, mac, false
	}
	message, err := ndp.ParseMessage(body)
	if err != nil {
		return ip, asks, mac, false
	}
	switch m := message.(type) {
	case *ndp.NeighborAdvertisement:
		mac, ok = linkLayer(m.Options, ndp.Target)
		return m.TargetAddress, asks, mac, ok
	case *ndp.NeighborSolicitation:
		mac, ok = linkLayer(m.Options, ndp.Source)
		return from, m.TargetAddress, mac, ok && !from.IsUnspecified()
	}
	return ip, asks, mac, false
}

func linkLayer(options []ndp.Option, d ndp.Direction) (mac hardwareAddr, ok bool) {
	for _, o := range options {
		if l, is := o.(*ndp.LinkLayerAddress); is && l.Direction == d && len(l.Addr) == len(mac) {
			return hardwareAddr(l.Addr), true
		}
	}
	return mac, false
}
