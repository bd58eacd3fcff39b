package vip

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
)

var vip6 = Address{IP: netip.MustParseAddr("2001:db8::101"), Interface: "eth0"}

// both makes a namespace with eth0 and eth1, and a table for an IPv4 VIP and an IPv6 VIP
// in it.
func both(t testing.TB) (*nstest.Namespace, *Table) {
	t.Helper()
	ns := nstest.Enter(t)
	far := ns.Beside()
	ns.Wire("eth0", far, "eth0")
	ns.Wire("eth1", far, "eth1")
	table, err := Open([]Address{vip1, vip6})
	must(t, err)
	t.Cleanup(table.Close)
	return ns, table
}

// global returns the IPv6 addresses that are not the kernel's own.
func global(t testing.TB, ns *nstest.Namespace) (found []netlink.Addr) {
	t.Helper()
	all, err := ns.Netlink.AddrList(nil, netlink.FAMILY_V6)
	must(t, err)
	return slices.DeleteFunc(all, func(a netlink.Addr) bool { return !a.IP.IsGlobalUnicast() })
}

func TestBindIPv6(t *testing.T) {
	ns, table := both(t)
	for _, bind := range []func() error{
		func() error { return table.Bind(vip6) },
		func() error { return table.BindFor(vip6, 5*time.Second) },
	} {
		must(t, table.Bind(vip1))
		must(t, bind())
		has(t, ns, loopback, bound1)
		all := global(t, ns)
		if len(all) != 1 || all[0].IPNet.String() != "2001:db8::101/128" {
			t.Fatalf("bound %v", all)
		}
		// Served at once, and never the source of connections that the host begins
		// itself.
		if f := all[0].Flags; f&unix.IFA_F_NODAD == 0 || f&unix.IFA_F_TENTATIVE != 0 || f&unix.IFA_F_NOPREFIXROUTE == 0 || all[0].PreferedLft != 0 {
			t.Errorf("bound as %+v", all[0])
		}
		bound, err := table.Bound()
		must(t, err)
		for _, b := range bound {
			if !b.AsBoundByBind || !b.Ours {
				t.Errorf("bound %+v", b)
			}
		}
		if len(bound) != 2 {
			t.Errorf("bound %+v", bound)
		}
		must(t, table.Unbind(vip6))
		must(t, table.Unbind(vip6))
		has(t, ns, loopback, bound1)
		if all := global(t, ns); len(all) != 0 {
			t.Errorf("left are %v", all)
		}
		must(t, table.Unbind(vip1))
	}
}

func TestBindIPv6AgainIsSilent(t *testing.T) {
	ns, table := both(t)
	watch, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV6_IFADDR)
	must(t, err)
	defer watch.Close()
	must(t, watch.SetReceiveTimeout(&unix.Timeval{Sec: 20}))
	must(t, table.Bind(vip6))
	for announced := false; !announced; { // a kernel worker does it, some time later
		messages, _, err := watch.Receive()
		must(t, err)
		for _, m := range messages {
			e, ok := parseEntry(m.Data)
			announced = announced || ok && e.local == vip6.IP
		}
	}
	for range 3 {
		must(t, table.Bind(vip6))
	}
	must(t, table.Renew(vip6, 5*time.Second)) // a mark in the stream
	messages, _, err := watch.Receive()
	must(t, err)
	if e, ok := parseEntry(messages[0].Data); !ok || e.local != vip6.IP || e.flags&unix.IFA_F_PERMANENT != 0 {
		t.Errorf("binding again announced %+v", e)
	}
	if all := global(t, ns); all[0].ValidLft < 4 || all[0].ValidLft > 6 {
		t.Errorf("renewed to %d s", all[0].ValidLft)
	}
}

// Bind corrects what somebody else bound: on another interface, with a wide prefix, or
// with duplicate address detection still under way.
func TestBindIPv6MakesRight(t *testing.T) {
	for name, put := range map[string]func(ns *nstest.Namespace){
		"wrong interface": func(ns *nstest.Namespace) { ns.Add("eth1", "2001:db8::101/128") },
		"loopback":        func(ns *nstest.Namespace) { ns.Add("lo", "2001:db8::101/128") },
		"wide":            func(ns *nstest.Namespace) { ns.Add("eth0", "2001:db8::101/64") },
		"in detection":    func(ns *nstest.Namespace) { ns.Add("eth0", "2001:db8::101/128") },
	} {
		t.Run(name, func(t *testing.T) {
			ns, table := both(t)
			put(ns)
			must(t, table.Bind(vip6))
			all := global(t, ns)
			if len(all) != 1 || all[0].IPNet.String() != "2001:db8::101/128" || all[0].LinkIndex != ns.Link("eth0").Attrs().Index ||
				all[0].Flags&unix.IFA_F_TENTATIVE != 0 {
				t.Errorf("bound %+v", all)
			}
		})
	}
}

func TestSweepIPv6(t *testing.T) {
	ns, table := both(t)
	ns.Add("lo", "2001:db8::101/128")
	ns.Add("eth0", "2001:db8::11/64")
	removed, err := table.Sweep(func(netip.Addr) bool { return false })
	must(t, err)
	if len(removed) != 1 || removed[0].Interface != "lo" {
		t.Errorf("removed %+v", removed)
	}
	if all := global(t, ns); len(all) != 1 || all[0].IPNet.String() != "2001:db8::11/64" {
		t.Errorf("left are %v", all)
	}
}

func TestBindIPv6Off(t *testing.T) {
	ns, table := both(t)
	ns.Sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
	err := table.Bind(vip6)
	if err == nil || !strings.HasPrefix(err.Error(), "bind 2001:db8::101/128 on eth0: permission denied (IPv6 is off there: ") {
		t.Errorf("IPv6 off: %v", err)
	}
}

func TestFlushConntrackIPv6(t *testing.T) {
	ns, table := both(t)
	flow := func(src, dst string, port uint16) {
		from, to := net.ParseIP(src), net.ParseIP(dst)
		must(t, ns.Netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET6, &netlink.ConntrackFlow{
			FamilyType: unix.AF_INET6,
			Forward:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: from, DstIP: to, SrcPort: port, DstPort: 5060},
			Reverse:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: to, DstIP: from, SrcPort: 5060, DstPort: port},
			TimeOut:    600,
		}))
	}
	flow("2001:db8:1::7", "2001:db8::101", 5070)
	flow("2001:db8::101", "2001:db8:1::7", 5071)
	flow("2001:db8::11", "2001:db8:1::7", 5072)
	track(t, ns, "198.51.100.7", "192.0.2.101", 5073)
	deleted, err := table.FlushConntrack(vip6.IP)
	must(t, err)
	if left, err := ns.Netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6); deleted != 2 || err != nil || len(left) != 1 {
		t.Errorf("deleted %d, left are %v, %v", deleted, left, err)
	}
	if left := tracked(t, ns); len(left) != 1 {
		t.Errorf("left of IPv4 are %v", left)
	}
}
