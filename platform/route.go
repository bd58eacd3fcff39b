package platform

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Routes reads routes, addresses and links of the network namespace in which it was
// opened. Any goroutine may use it.
type Routes struct{ handle *netlink.Handle }

// OpenRoutes opens one netlink socket in the caller's network namespace.
func OpenRoutes() (*Routes, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket for routes: %w", err)
	}
	return &Routes{handle}, nil
}

// Close closes the socket.
func (r *Routes) Close() { r.handle.Close() }

// NextHop returns the next hop of the default route through ifname, for IPv6 or IPv4. If
// there are several such routes, the lowest metric wins; if there is none, the result is
// the zero Addr. Like `ip route show default dev IF`. An IPv6 next hop is mostly
// link-local; it carries no zone.
func (r *Routes) NextHop(ifname string, ipv6 bool) (netip.Addr, error) {
	link, err := r.handle.LinkByName(ifname)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the default route on %s: %w", ifname, err)
	}
	family := netlink.FAMILY_V4
	if ipv6 {
		family = netlink.FAMILY_V6
	}
	routes, err := r.handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN, Dst: nil}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return netip.Addr{}, fmt.Errorf("find the default route on %s: %w", ifname, err)
	}
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, route := range routes {
		if hop := nextHop(route, link.Attrs().Index); hop.IsValid() {
			return hop, nil
		}
	}
	return netip.Addr{}, nil
}

func nextHop(route netlink.Route, index int) netip.Addr {
	if len(route.MultiPath) == 0 {
		route.MultiPath = []*netlink.NexthopInfo{{LinkIndex: route.LinkIndex, Gw: route.Gw, Via: route.Via}}
	}
	for _, hop := range route.MultiPath {
		gateway := hop.Gw
		if via, is := hop.Via.(*netlink.Via); is && gateway == nil {
			gateway = via.Addr
		}
		if a, ok := netip.AddrFromSlice(gateway); ok && hop.LinkIndex == index && !a.IsUnspecified() {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// OwnAddress returns an address of ifname from which packets can be sent to towards.
// Preferred is one whose subnet contains towards (link-local for link-local), or else any
// of the same family that is not link-local. It skips tentative addresses, and those that
// except returns true for. If there is none, the result is the zero Addr.
func (r *Routes) OwnAddress(ifname string, towards netip.Addr, except func(netip.Addr) bool) (netip.Addr, error) {
	link, err := r.handle.LinkByName(ifname)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find an address of %s: %w", ifname, err)
	}
	family := netlink.FAMILY_V4
	if towards.Is6() {
		family = netlink.FAMILY_V6
	}
	addresses, err := r.handle.AddrList(link, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return netip.Addr{}, fmt.Errorf("find an address of %s: %w", ifname, err)
	}
	var any netip.Addr
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if ip = ip.Unmap(); !ok || except(ip) || a.Flags&unix.IFA_F_TENTATIVE != 0 {
			continue
		}
		if prefix, err := ip.Prefix(ones); err == nil && prefix.Contains(towards.WithZone("")) {
			return ip, nil
		}
		if !any.IsValid() && !ip.IsLinkLocalUnicast() {
			any = ip
		}
	}
	return any, nil
}

// HardwareAddresses returns the MAC addresses of all interfaces.
func (r *Routes) HardwareAddresses() ([]net.HardwareAddr, error) {
	links, err := r.handle.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list the MAC addresses of this machine: %w", err)
	}
	var all []net.HardwareAddr
	for _, l := range links {
		if mac := l.Attrs().HardwareAddr; len(mac) == 6 {
			all = append(all, mac)
		}
	}
	return all, nil
}
