// Package phones helps the phones that are connected to a VIP by TCP, plain or under
// TLS, over a takeover (§5.5). Their connections end with the old holder, and none
// of them hears of it before it next sends: for a registration, minutes later. So the
// holder lists them with their sequence numbers, and the next one sends each a
// keepalive in the VIP's name, which draws a reset.
package phones

import (
	"net/netip"
	"slices"

	"sipalive/platform"
)

// Connection is one established TCP connection on a VIP.
type Connection struct {
	Phone netip.AddrPort
	Port  uint16 // at the VIP
	// Seq is the oldest number that the phone has not acknowledged, Ack the one
	// expected from it; both 0 where they are not known.
	Seq, Ack uint32
}

// Most bounds what is listed and kept of one VIP, MostOfAll what is kept of all.
const (
	Most      = 8192
	MostOfAll = 4 * Most
)

// List tells of the established connections on each of vips, Most of each at most.
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

// reachable says whether a keepalive could go from another node of vip to the phone: a
// link-local address means nothing there, and what is no connection at all comes
// from a node that lies.
func (c Connection) reachable(vip netip.Addr) bool {
	a := c.Phone.Addr()
	return a.Is4() == vip.Is4() && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		c.Phone.Port() != 0 && c.Port != 0
}
