// Package phones helps phones that are connected to a VIP by TCP, plain or under TLS,
// through a takeover (§5.5). Their connections end with the old holder, and nobody tells
// the phones: they notice when they next send, which for a registration is minutes later.
// So the holder lists the connections with their sequence numbers, and the next holder
// sends each phone a keepalive in the VIP's name, which draws a reset.
package phones

import (
	"net/netip"
	"slices"

	"sipalive/platform"
)

// Connection is one established TCP connection on a VIP.
type Connection struct {
	Phone netip.AddrPort
	Port  uint16 // the VIP's port
	// Seq is the oldest number that the phone has not acknowledged; Ack is the next
	// number expected from the phone. Both are 0 if they are not known.
	Seq, Ack uint32
}

// Most is how many connections of one VIP are listed and kept, MostOfAll how many are
// kept of all VIPs.
const (
	Most      = 8192
	MostOfAll = 4 * Most
)

// List returns the established connections on each of vips, at most Most of each.
func List(vips []netip.Addr) (map[netip.Addr][]Connection, error) {
	all := map[netip.Addr][]Connection{}
	err := platform.EstablishedTCP(vips, func(local, remote netip.AddrPort) {
		of, c := all[local.Addr()], Connection{Phone: remote, Port: local.Port()}
		if len(of) < Most && slices.Contains(vips, local.Addr()) && c.reachable(local.Addr()) {
			all[local.Addr()] = append(of, c)
		}
	})
	return all, err
}

// reachable says whether another node could send the phone a keepalive from vip. A
// link-local address means nothing on another node. The other values cannot belong to a
// connection and come from a node that lies.
func (c Connection) reachable(vip netip.Addr) bool {
	a := c.Phone.Addr()
	return a.Is4() == vip.Is4() && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		c.Phone.Port() != 0 && c.Port != 0
}
