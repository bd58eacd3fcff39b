package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routerLinkLocal is the router's link-local address on both of its links, and the
// default route of all other hosts. IPv6 hosts know a router by its link-local address.
var routerLinkLocal = netip.MustParseAddr("fe80::1")

// buildIPv6 gives every host an IPv6 address beside its IPv4 address, and a default route
// through the router.
func (l *Lab) buildIPv6() error {
	if err := l.router.Do(func() error { return sysctl("ipv6/conf/*/forwarding", "1") }); err != nil {
		return err
	}
	gateway := l.address6(l.phoneAddress(1))
	for _, at := range []struct {
		host *Host
		dev  string
		addr netip.Addr
	}{{l.router, nic, l.router.Addr6}, {l.router, "eth1", gateway}, {l.phone, nic, l.phone.Addr6}} {
		if err := at.host.configure(at.dev, netip.PrefixFrom(at.addr, l.subnet6.Bits())); err != nil {
			return err
		}
	}
	for _, dev := range []string{nic, "eth1"} {
		if err := l.router.configure(dev, netip.PrefixFrom(routerLinkLocal, 64)); err != nil {
			return err
		}
	}
	for _, h := range l.nodes {
		if err := h.configure(nic, netip.PrefixFrom(h.Addr6, l.subnet6.Bits())); err != nil {
			return err
		}
	}
	for _, h := range append([]*Host{l.phone}, l.nodes...) {
		if err := h.defaultRoute6(); err != nil {
			return err
		}
	}
	return nil
}

// awaitLocal waits until the kernel has added the local route of an address. The kernel
// adds it from a work queue: on a busy machine that may be after somebody has looked at
// the routes.
func (h *Host) awaitLocal(addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	route := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(128, 128)}}
	return WaitFor(ctx, fmt.Sprintf("the route of %v on %s", addr, h.Name), func() error {
		found, err := h.ns.route.RouteListFiltered(netlink.FAMILY_V6, route, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		if err == nil && len(found) == 0 {
			err = errors.New("none")
		}
		return err
	})
}

func (h *Host) defaultRoute6() error {
	link, err := h.ns.route.LinkByName(nic)
	if err == nil {
		err = h.ns.route.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IP(routerLinkLocal.AsSlice())})
	}
	if err != nil {
		return fmt.Errorf("default route of %s via %v: %w", h.Name, routerLinkLocal, err)
	}
	return nil
}
