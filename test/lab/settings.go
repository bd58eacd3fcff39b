package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Settings returns a host's addresses, its routes of every table and its rules, one per
// line, sorted. It leaves out what leave returns true for, and what changes by itself
// when a link goes down and up again: flags, lifetimes, and the addresses that IPv6 adds
// on its own.
func (h *Host) Settings(leave func(dev string, addr netip.Addr) bool) ([]string, error) {
	devices, err := h.devices()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		for _, list := range []func(int, map[int]string, func(string, netip.Addr) bool) ([]string, error){h.addresses, h.routes, h.rules} {
			some, err := list(family, devices, leave)
			if err != nil {
				return nil, fmt.Errorf("settings of %s: %w", h.Name, err)
			}
			lines = append(lines, some...)
		}
	}
	slices.Sort(lines)
	return lines, nil
}

func (h *Host) devices() (map[int]string, error) {
	links, err := h.ns.route.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the links of %s: %w", h.Name, err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

func (h *Host) addresses(family int, devices map[int]string, leave func(string, netip.Addr) bool) (lines []string, err error) {
	all, err := h.ns.route.AddrList(nil, family)
	for _, a := range all {
		if dev := devices[a.LinkIndex]; !leave(dev, addressOf(a.IP)) && !kernels(addressOf(a.IP)) {
			lines = append(lines, fmt.Sprintf("address %v dev %s label %q scope %d broadcast %v peer %v", a.IPNet, dev, a.Label, a.Scope, a.Broadcast, a.Peer))
		}
	}
	return lines, err
}

func (h *Host) routes(family int, devices map[int]string, leave func(string, netip.Addr) bool) (lines []string, err error) {
	all, err := h.ns.route.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	for _, r := range all {
		dev := devices[r.LinkIndex]
		if leave(dev, addressOf(r.Src)) {
			continue
		}
		if r.Dst != nil && (leave(dev, addressOf(r.Dst.IP)) || kernels(addressOf(r.Dst.IP))) {
			continue
		}
		lines = append(lines, fmt.Sprintf("route %v type %d table %d via %v dev %s src %v scope %d protocol %d priority %d",
			r.Dst, r.Type, r.Table, r.Gw, dev, r.Src, r.Scope, r.Protocol, r.Priority))
	}
	return lines, err
}

func (h *Host) rules(family int, _ map[int]string, leave func(string, netip.Addr) bool) (lines []string, err error) {
	all, err := h.ns.route.RuleList(family)
	for _, r := range all {
		lines = append(lines, fmt.Sprintf("rule %d family %d from %v to %v iif %q oif %q mark %d table %d", r.Priority, family, r.Src, r.Dst, r.IifName, r.OifName, r.Mark, r.Table))
	}
	return lines, err
}

// kernels reports addresses that the kernel adds for IPv6 itself, some time after the
// link came up.
func kernels(a netip.Addr) bool { return a.Is6() && (a.IsLinkLocalUnicast() || a.IsMulticast()) }

// addressOf returns the invalid address for a nil ip.
func addressOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
