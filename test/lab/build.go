package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the switch's bridge device. It has no address and sends nothing.
const bridgeName = "switch0"

// nic is the interface towards the switch, on every node and on the router. On the phone
// it is the interface towards the router.
const nic = "eth0"

func (l *Lab) build() error {
	if err := l.makeDataDir(); err != nil {
		return err
	}
	if err := l.buildSwitch(); err != nil {
		return err
	}
	for _, h := range l.Hosts() {
		ns, err := l.namespace(h.Name)
		if err != nil {
			return err
		}
		h.ns, h.Namespace = ns, ns.path()
	}
	if err := l.buildRouter(); err != nil {
		return err
	}
	for _, h := range l.nodes {
		if err := l.plugIn(h); err != nil {
			return err
		}
		if err := h.defaultRoute(l.router.Addr); err != nil {
			return err
		}
	}
	if l.management {
		if err := l.buildManagement(); err != nil {
			return err
		}
	}
	if l.subnet6.IsValid() {
		return l.buildIPv6()
	}
	return nil
}

func (l *Lab) namespace(name string) (*namespace, error) {
	ns, err := createNamespace(l.run.String() + "-" + name)
	if err != nil {
		return nil, err
	}
	l.all = append(l.all, ns)
	return ns, nil
}

func (l *Lab) buildSwitch() error {
	ns, err := l.namespace("switch")
	if err != nil {
		return err
	}
	l.bridge = ns
	// Cut takes a port out of the bridge; this namespace must not answer the frames that
	// then arrive there. And where br_netfilter is loaded, iptables must not see the
	// frames.
	err = ns.do(func() error {
		if err := sysctl("ipv6/conf/*/disable_ipv6", "1"); err != nil {
			return err
		}
		return sysctl("ipv4/conf/*/arp_ignore", "8")
	})
	if err != nil {
		return err
	}
	noSnooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = bridgeName, net.HardwareAddr{0x02, 0, 0, 0, 0, 0xfe}
	l.bridgeDev = &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &noSnooping}
	if err := ns.route.LinkAdd(l.bridgeDev); err != nil {
		return fmt.Errorf("create bridge: %w (kernel without CONFIG_BRIDGE?)", err)
	}
	if err := ns.route.LinkSetUp(l.bridgeDev); err != nil {
		return fmt.Errorf("set bridge up: %w", err)
	}
	return nil
}

// plugIn connects a host's eth0, with its address, to a switch port with the host's name.
func (l *Lab) plugIn(h *Host) error {
	if err := veth(l.bridge, h.Name, nil, h.ns, nic, h.MAC); err != nil {
		return err
	}
	if err := h.configure(nic, netip.PrefixFrom(h.Addr, l.subnet.Bits())); err != nil {
		return err
	}
	port, err := l.port(h)
	if err != nil {
		return err
	}
	return l.connect(port)
}

// connect puts a port into the bridge. The port forwards at once: there is no spanning
// tree.
func (l *Lab) connect(port netlink.Link) error {
	if err := l.bridge.route.LinkSetMaster(port, l.bridgeDev); err != nil {
		return fmt.Errorf("connect switch port %s: %w", port.Attrs().Name, err)
	}
	return nil
}

// port returns a host's port in the switch.
func (l *Lab) port(h *Host) (netlink.Link, error) {
	if h == l.phone {
		return nil, fmt.Errorf("switch port of %s: it has none, it is behind the router", h.Name)
	}
	port, err := l.bridge.route.LinkByName(h.Name)
	if err != nil {
		return nil, fmt.Errorf("switch port of %s: %w", h.Name, err)
	}
	return port, nil
}

func (l *Lab) buildRouter() error {
	if err := l.plugIn(l.router); err != nil {
		return err
	}
	gateway := l.phoneAddress(1)
	if err := veth(l.router.ns, "eth1", macOf(gateway), l.phone.ns, nic, l.phone.MAC); err != nil {
		return err
	}
	if err := l.router.configure("eth1", netip.PrefixFrom(gateway, l.subnet.Bits())); err != nil {
		return err
	}
	if err := l.phone.configure(nic, netip.PrefixFrom(l.phone.Addr, l.subnet.Bits())); err != nil {
		return err
	}
	if err := l.phone.defaultRoute(gateway); err != nil {
		return err
	}
	return l.router.Do(func() error { return sysctl("ipv4/ip_forward", "1") })
}

// veth connects two namespaces by a cable and sets both ends up. Neither end is ever in
// the machine's own namespace.
func veth(a *namespace, nameA string, macA net.HardwareAddr, b *namespace, nameB string, macB net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = nameA, macA
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr, pair.PeerNamespace = nameB, macB, netlink.NsFd(b.fd)
	if err := a.route.LinkAdd(pair); err != nil {
		return fmt.Errorf("create veth %s in %s to %s in %s: %w", nameA, a.name, nameB, b.name, err)
	}
	for _, end := range []struct {
		ns   *namespace
		name string
	}{{a, nameA}, {b, nameB}} {
		link, err := end.ns.route.LinkByName(end.name)
		if err == nil {
			err = end.ns.route.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("set %s up in %s: %w", end.name, end.ns.name, err)
		}
	}
	return nil
}

func (h *Host) configure(dev string, prefix netip.Prefix) error {
	if err := h.change(dev, prefix, h.ns.route.AddrAdd); err != nil {
		return fmt.Errorf("bind %v on %s of %s: %w", prefix, dev, h.Name, err)
	}
	if prefix.Addr().Is6() {
		return h.awaitLocal(prefix.Addr())
	}
	return nil
}

func (h *Host) change(dev string, prefix netip.Prefix, do func(netlink.Link, *netlink.Addr) error) error {
	link, err := h.ns.route.LinkByName(dev)
	if err != nil {
		return err
	}
	ip := net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
	address := &netlink.Addr{IPNet: &ip}
	if prefix.Addr().Is6() {
		// Even with duplicate address detection off, the kernel takes a moment before the
		// address counts as ready. A socket opened in that moment would keep another
		// source address for good.
		address.Flags = unix.IFA_F_NODAD
	}
	return do(link, address)
}

func (h *Host) defaultRoute(gateway netip.Addr) error {
	route := &netlink.Route{Gw: gateway.AsSlice()}
	if err := h.ns.route.RouteAdd(route); err != nil {
		return fmt.Errorf("default route of %s via %v: %w", h.Name, gateway, err)
	}
	return nil
}
