package platform

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Gateway is the IPv4 default route with the least metric: its next hop and its
// interface (`ip -4 route show default`). ok is false where there is none.
func Gateway() (hop netip.Addr, iface string, ok bool, err error) {
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return hop, "", false, fmt.Errorf("list routes: %w", err)
	}
	var best *netlink.Route
	for i, r := range routes {
		if ones := prefixLength(r.Dst); ones != 0 || r.Gw == nil {
			continue
		}
		if best == nil || r.Priority < best.Priority {
			best = &routes[i]
		}
	}
	if best == nil {
		return hop, "", false, nil
	}
	ifi, err := net.InterfaceByIndex(best.LinkIndex)
	if err != nil {
		return hop, "", false, fmt.Errorf("name the interface of the default route: %w", err)
	}
	hop, _ = netip.AddrFromSlice(best.Gw)
	return hop.Unmap(), ifi.Name, true, nil
}

// prefixLength of a destination; the kernel gives none for the default route.
func prefixLength(dst *net.IPNet) int {
	if dst == nil {
		return 0
	}
	ones, _ := dst.Mask.Size()
	return ones
}
