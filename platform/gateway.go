package platform

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Gateway is the next hop of an interface's IPv4 default route, the one of
// least metric: `ip route show default dev IFNAME`.
func Gateway(ifname string) (netip.Addr, error) {
	link, err := netlink.LinkByName(ifname)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the gateway of %s: %w", ifname, err)
	}
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the gateway of %s: %w", ifname, err)
	}
	var best *netlink.Route
	for i, r := range routes {
		ones := 0
		if r.Dst != nil {
			ones, _ = r.Dst.Mask.Size()
		}
		if r.Gw != nil && ones == 0 && (best == nil || r.Priority < best.Priority) {
			best = &routes[i]
		}
	}
	if best == nil {
		return netip.Addr{}, fmt.Errorf("find the gateway of %s: no default route by it", ifname)
	}
	gw, _ := netip.AddrFromSlice(best.Gw)
	return gw.Unmap(), nil
}

// AddressOn is the first IPv4 address of an interface that is none of except.
func AddressOn(ifname string, except map[netip.Addr]bool) (netip.Addr, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find an address on %s: %w", ifname, err)
	}
	all, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find an address on %s: %w", ifname, err)
	}
	for _, a := range toAddrs(all) {
		if a.Is4() && !except[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("find an address on %s: it has none of its own", ifname)
}
