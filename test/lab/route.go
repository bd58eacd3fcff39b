package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// RouteToSwitch adds a route to the router, so that it looks for the addresses of a
// network on the switch: for VIPs outside the nodes' own network.
func (l *Lab) RouteToSwitch(p netip.Prefix) error {
	link, err := l.router.ns.route.LinkByName(nic)
	if err == nil {
		dst := &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		err = l.router.ns.route.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})
	}
	if err != nil {
		return fmt.Errorf("route of %s to %v by %s: %w", l.router.Name, p, nic, err)
	}
	return nil
}

// Traffic counts what a host has sent by eth0 since the interface was made: frames, and
// bytes with their Ethernet headers.
type Traffic struct{ Frames, Bytes uint64 }

// Traffic returns the kernel's count of what this host has sent.
func (h *Host) Traffic() (Traffic, error) {
	link, err := h.ns.route.LinkByName(nic)
	if err != nil {
		return Traffic{}, fmt.Errorf("traffic of %s: %w", h.Name, err)
	}
	s := link.Attrs().Statistics
	return Traffic{s.TxPackets, s.TxBytes}, nil
}
