package platform

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"sipalive/platform/nstest"
)

func TestGateway(t *testing.T) {
	ns := nstest.Enter(t)
	if _, _, ok, err := Gateway(); ok || err != nil {
		t.Errorf("without a default route: %t, %v", ok, err)
	}
	route := func(link netlink.Link, hop string, metric int) {
		t.Helper()
		if err := ns.Netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(hop), Priority: metric}); err != nil {
			t.Fatal(err)
		}
	}
	other := ns.Beside()
	link := func(name, address string) netlink.Link {
		t.Helper()
		ns.Wire(name, other, name)
		ns.Add(name, address)
		return ns.Link(name)
	}
	route(link("backup0", "198.51.100.2/24"), "198.51.100.1", 200)
	route(link("lan0", "192.0.2.2/24"), "192.0.2.1", 100)
	hop, iface, ok, err := Gateway()
	if err != nil || !ok || hop != netip.MustParseAddr("192.0.2.1") || iface != "lan0" {
		t.Errorf("gateway %s on %s, %t, %v", hop, iface, ok, err)
	}
}
