package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// The names of the management switch and of each node's interface to it.
const (
	managementBridge = "switch1"
	managementNIC    = "eth1"
)

// OnManagement returns the management address of the host with this address on the
// switch.
func OnManagement(a netip.Addr) netip.Addr {
	ip := a.As4()
	ip[2] += 2
	return netip.AddrFrom4(ip)
}

func (l *Lab) buildManagement() error {
	noSnooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = managementBridge, net.HardwareAddr{0x02, 0, 0, 0, 0, 0xfd}
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &noSnooping}
	if err := l.bridge.route.LinkAdd(bridge); err != nil {
		return fmt.Errorf("create bridge %s: %w", managementBridge, err)
	}
	if err := l.bridge.route.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge %s up: %w", managementBridge, err)
	}
	for _, h := range l.nodes {
		h.Addr2 = OnManagement(h.Addr)
		if err := veth(l.bridge, managementPort(h), nil, h.ns, managementNIC, macOf(h.Addr2)); err != nil {
			return err
		}
		if err := h.configure(managementNIC, netip.PrefixFrom(h.Addr2, l.subnet.Bits())); err != nil {
			return err
		}
		port, err := l.bridge.route.LinkByName(managementPort(h))
		if err == nil {
			err = l.bridge.route.LinkSetMaster(port, bridge)
		}
		if err != nil {
			return fmt.Errorf("connect management port of %s: %w", h.Name, err)
		}
	}
	return nil
}

// managementPort returns the name of a host's port in the management switch.
func managementPort(h *Host) string { return "m-" + h.Name }

// CutManagement makes a node's management port silent and deaf, with its carrier up.
// RestoreManagement undoes it.
func (l *Lab) CutManagement(h *Host) error {
	port, err := l.bridge.route.LinkByName(managementPort(h))
	if err == nil {
		err = l.bridge.route.LinkSetNoMaster(port)
	}
	if err != nil {
		return fmt.Errorf("cut management of %s: %w", h.Name, err)
	}
	return nil
}

// RestoreManagement undoes CutManagement.
func (l *Lab) RestoreManagement(h *Host) error {
	port, err := l.bridge.route.LinkByName(managementPort(h))
	if err != nil {
		return fmt.Errorf("restore management of %s: %w", h.Name, err)
	}
	bridge, err := l.bridge.route.LinkByName(managementBridge)
	if err == nil {
		err = l.bridge.route.LinkSetMaster(port, bridge)
	}
	if err != nil {
		return fmt.Errorf("restore management of %s: %w", h.Name, err)
	}
	return nil
}

// SetMTU sets the MTU of every interface of the nodes, of the router and of the switch,
// as on a tunnelled network.
func (l *Lab) SetMTU(mtu int) error {
	all := []*namespace{l.bridge, l.router.ns}
	for _, h := range l.nodes {
		all = append(all, h.ns)
	}
	for _, ns := range all {
		links, err := ns.route.LinkList()
		if err != nil {
			return fmt.Errorf("list interfaces of %s: %w", ns.name, err)
		}
		for _, link := range links {
			if link.Attrs().Name == "lo" {
				continue
			}
			if err := ns.route.LinkSetMTU(link, mtu); err != nil {
				return fmt.Errorf("set MTU of %s in %s: %w", link.Attrs().Name, ns.name, err)
			}
		}
	}
	return nil
}
