package vip

import (
	"errors"
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

var (
	vip1 = Address{IP: netip.MustParseAddr("192.0.2.101"), Interface: "eth0"}
	vip2 = Address{IP: netip.MustParseAddr("192.0.2.102"), Interface: "eth0"}
)

const (
	loopback = "lo 127.0.0.1/8"
	bound1   = "eth0 192.0.2.101/32"
)

// host makes a namespace with eth0 and eth1, and a table for two VIPs in it.
func host(t testing.TB) (*nstest.Namespace, *Table) {
	t.Helper()
	ns := nstest.Enter(t)
	far := ns.Beside()
	ns.Wire("eth0", far, "eth0")
	ns.Wire("eth1", far, "eth1")
	return ns, open(t)
}

func open(t testing.TB) *Table {
	t.Helper()
	table, err := Open([]Address{vip1, vip2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	return table
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// has fails unless the namespace has exactly these addresses, in any order.
func has(t testing.TB, ns *nstest.Namespace, want ...string) {
	t.Helper()
	got := ns.Addresses()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("addresses %q, want %q", got, want)
	}
}

func TestBindUnbind(t *testing.T) {
	ns, table := host(t)
	must(t, table.Bind(vip1))
	has(t, ns, loopback, bound1)

	bound, err := table.Bound()
	must(t, err)
	want := Bound{Address: vip1, Index: ns.Link("eth0").Attrs().Index, PrefixLength: 32, Ours: true, AsBoundByBind: true}
	if len(bound) != 1 || bound[0] != want {
		t.Errorf("bound %+v, want %+v", bound, want)
	}
	all, err := table.list()
	must(t, err)
	i := slices.IndexFunc(all, func(e entry) bool { return e.local == vip1.IP })
	if flags := all[i].flags; flags&unix.IFA_F_NOPREFIXROUTE == 0 || flags&unix.IFA_F_PERMANENT == 0 || all[i].scope != unix.RT_SCOPE_UNIVERSE {
		t.Errorf("bound as %+v", all[i])
	}

	must(t, table.Unbind(vip1))
	has(t, ns, loopback)
	must(t, table.Unbind(vip1))
}

// Binding again must not wake the watchers of addresses. The agent is one of them: it
// would bind again, for ever.
func TestBindAgainIsSilent(t *testing.T) {
	ns, table := host(t)
	must(t, table.Bind(vip1))
	watch, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR)
	must(t, err)
	defer watch.Close()
	for range 3 {
		must(t, table.Bind(vip1))
	}
	ns.Add("eth1", "198.51.100.1/24") // a mark in the stream
	messages, _, err := watch.Receive()
	must(t, err)
	if e, ok := parseEntry(messages[0].Data); !ok || e.local != netip.MustParseAddr("198.51.100.1") {
		t.Errorf("binding again announced %+v", e)
	}
}

func TestBindMakesRight(t *testing.T) {
	eth0 := func(ns *nstest.Namespace) netlink.Link { return ns.Link("eth0") }
	address := func(cidr string) *netlink.Addr {
		a, err := netlink.ParseAddr(cidr)
		must(t, err)
		return a
	}
	for name, make := range map[string]func(*nstest.Namespace) error{
		"wrong interface": func(ns *nstest.Namespace) error { ns.Add("eth1", "192.0.2.101/32"); return nil },
		"loopback":        func(ns *nstest.Namespace) error { ns.Add("lo", "192.0.2.101/32"); return nil },
		"wide":            func(ns *nstest.Namespace) error { ns.Add("eth0", "192.0.2.101/24"); return nil },
		"wide and host": func(ns *nstest.Namespace) error {
			ns.Add("eth0", "192.0.2.101/24")
			ns.Add("eth0", "192.0.2.101/32")
			return nil
		},
		"wide elsewhere": func(ns *nstest.Namespace) error { ns.Add("eth1", "192.0.2.101/24"); return nil },
		"everywhere": func(ns *nstest.Namespace) error {
			ns.Add("eth1", "192.0.2.101/32")
			ns.Add("lo", "192.0.2.101/8")
			return nil
		},
		"right but foreign": func(ns *nstest.Namespace) error { ns.Add("eth0", "192.0.2.101/32"); return nil },
		"a lifetime": func(ns *nstest.Namespace) error {
			a := address("192.0.2.101/32")
			a.ValidLft, a.PreferedLft = 600, 0
			return ns.Netlink.AddrAdd(eth0(ns), a)
		},
		"scope host": func(ns *nstest.Namespace) error {
			a := address("192.0.2.101/32")
			a.Scope = unix.RT_SCOPE_HOST
			return ns.Netlink.AddrAdd(eth0(ns), a)
		},
		"a label": func(ns *nstest.Namespace) error {
			a := address("192.0.2.101/32")
			a.Label = "eth0:1"
			return ns.Netlink.AddrAdd(eth0(ns), a)
		},
		"a peer": func(ns *nstest.Namespace) error {
			a := address("192.0.2.101/32")
			a.Peer = &net.IPNet{IP: net.IPv4(198, 51, 100, 7).To4(), Mask: net.CIDRMask(32, 32)}
			return ns.Netlink.AddrAdd(eth0(ns), a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns, table := host(t)
			ns.Add("eth0", "198.51.100.11/24")
			must(t, make(ns))
			must(t, table.Bind(vip1))
			has(t, ns, loopback, "eth0 198.51.100.11/24", bound1)
			bound, err := table.Bound()
			must(t, err)
			if len(bound) != 1 || !bound[0].AsBoundByBind || !bound[0].Ours {
				t.Errorf("bound %+v", bound)
			}
		})
	}
}

// If somebody gives our own copy a lifetime, it would vanish by itself.
func TestBindOutlivesALifetime(t *testing.T) {
	ns, table := host(t)
	must(t, table.Bind(vip1))
	real := table.execute
	table.execute = func(request *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
		lifetime := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: 600}}
		request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetime.Serialize()))
		return real(request, answer)
	}
	must(t, table.add(ns.Link("eth0").Attrs().Index, vip1.IP, unix.NLM_F_REPLACE, forever))
	table.execute = real
	permanent := func() bool {
		all, err := table.list()
		must(t, err)
		i := slices.IndexFunc(all, func(e entry) bool { return e.local == vip1.IP })
		return all[i].flags&unix.IFA_F_PERMANENT != 0
	}
	if permanent() {
		t.Fatal("it got no lifetime")
	}
	must(t, table.Bind(vip1))
	if !permanent() {
		t.Error("bound again, it still has a lifetime")
	}
}

// Bind adds the right copy before it removes the wrong one, so the VIP is always bound
// somewhere.
func TestBindAddsBeforeItRemoves(t *testing.T) {
	ns, table := host(t)
	ns.Add("eth0", "192.0.2.101/24")
	ns.Add("eth1", "192.0.2.101/32")
	watch, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR)
	must(t, err)
	defer watch.Close()
	must(t, table.Bind(vip1))
	var kinds []uint16
	for len(kinds) < 3 {
		messages, _, err := watch.Receive()
		must(t, err)
		for _, m := range messages {
			kinds = append(kinds, m.Header.Type)
		}
	}
	if !slices.Equal(kinds, []uint16{unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_DELADDR}) {
		t.Errorf("events %v", kinds)
	}
}

// Somebody bound the VIP as /24 before the node's own address. That address then depends
// on the VIP's, and the default route on that address.
func TestWideCopyGoesAlone(t *testing.T) {
	remove := map[string]func(*Table) error{
		"bind":   func(table *Table) error { return table.Bind(vip1) },
		"unbind": func(table *Table) error { return table.Unbind(vip1) },
		"sweep": func(table *Table) error {
			_, err := table.Sweep(func(netip.Addr) bool { return false })
			return err
		},
	}
	for name, remove := range remove {
		t.Run(name, func(t *testing.T) {
			ns, table := host(t)
			ns.Add("eth0", "192.0.2.101/24")
			ns.Add("eth0", "192.0.2.11/24")
			ns.Add("eth0", "192.0.2.12/24")
			must(t, ns.Netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(192, 0, 2, 1)}))
			index := ns.Link("eth0").Attrs().Index
			must(t, remove(table))
			want := []string{loopback, "eth0 192.0.2.11/24", "eth0 192.0.2.12/24"}
			if name == "bind" {
				want = append(want, bound1)
			}
			has(t, ns, want...)
			routes, err := ns.Netlink.RouteGet(net.IPv4(203, 0, 113, 1))
			if err != nil || len(routes) != 1 || !routes[0].Src.Equal(net.IPv4(192, 0, 2, 11)) {
				t.Errorf("default route: %v, %v", routes, err)
			}
			if on, err := table.promotes(index); err != nil || on {
				t.Errorf("promote_secondaries is %v now (%v), was off", on, err)
			}
		})
	}
}

// If promote_secondaries was already on, it stays on.
func TestPromoteSettingIsKept(t *testing.T) {
	ns, table := host(t)
	index := ns.Link("eth0").Attrs().Index
	must(t, table.setPromote(index, true))
	ns.Add("eth0", "192.0.2.101/24")
	ns.Add("eth0", "192.0.2.11/24")
	must(t, table.Unbind(vip1))
	has(t, ns, loopback, "eth0 192.0.2.11/24")
	if on, err := table.promotes(index); err != nil || !on {
		t.Errorf("promote_secondaries is %v now (%v), was on", on, err)
	}
}

func TestUnbindEveryCopy(t *testing.T) {
	ns, table := host(t)
	must(t, table.Bind(vip1))
	must(t, table.Bind(vip2))
	ns.Add("eth0", "192.0.2.101/24")
	ns.Add("eth1", "192.0.2.101/30")
	ns.Add("lo", "192.0.2.101/32")
	must(t, table.Unbind(vip1))
	has(t, ns, loopback, "eth0 192.0.2.102/32")

	// The VIP's interface is gone, a copy on another interface is not.
	ns.Add("eth1", "192.0.2.101/32")
	ns.Remove("eth0")
	must(t, table.Unbind(vip1))
	has(t, ns, loopback)
}

func TestSweep(t *testing.T) {
	ns, table := host(t)
	ns.Add("eth0", "192.0.2.11/24")
	ns.Add("lo", "192.0.2.101/32")
	ns.Add("eth1", "192.0.2.101/24")
	must(t, table.Bind(vip2))
	removed, err := table.Sweep(func(ip netip.Addr) bool { return ip == vip2.IP })
	must(t, err)
	if len(removed) != 2 || removed[0].Interface != "lo" || removed[0].IP != vip1.IP ||
		removed[1].Interface != "eth1" || removed[1].PrefixLength != 24 {
		t.Errorf("removed %+v", removed)
	}
	has(t, ns, loopback, "eth0 192.0.2.11/24", "eth0 192.0.2.102/32")

	removed, err = table.Sweep(func(netip.Addr) bool { return false })
	must(t, err)
	if len(removed) != 1 || !removed[0].Ours {
		t.Errorf("removed %+v", removed)
	}
	has(t, ns, loopback, "eth0 192.0.2.11/24")
}

// Only VIPs are ever changed.
func TestForeignAddresses(t *testing.T) {
	ns, table := host(t)
	ns.Add("eth0", "192.0.2.11/24")
	own := Address{IP: netip.MustParseAddr("192.0.2.11"), Interface: "eth0"}
	for what, err := range map[string]error{"bind": table.Bind(own), "unbind": table.Unbind(own)} {
		if err == nil || !strings.Contains(err.Error(), what+" 192.0.2.11") || !strings.Contains(err.Error(), "not a configured VIP") {
			t.Errorf("%s of the node's own address: %v", what, err)
		}
	}
	if _, err := table.FlushConntrack(own.IP); err == nil {
		t.Error("connections of the node's own address may be deleted")
	}
	has(t, ns, loopback, "eth0 192.0.2.11/24")
	must(t, table.Manage([]Address{own}))
	must(t, table.Bind(own))
}

func TestManage(t *testing.T) {
	for text, managed := range map[string][]Address{
		"manage fe80::1%eth0: not a plain address":     {{IP: netip.MustParseAddr("fe80::1%eth0")}},
		"manage ::ffff:192.0.2.1: not a plain address": {{IP: netip.MustParseAddr("::ffff:192.0.2.1")}},
		"manage invalid IP: not a plain address":       {{}},
		"manage 192.0.2.101: configured twice":         {vip1, vip1},
	} {
		if _, err := Open(managed); err == nil || err.Error() != text {
			t.Errorf("got %v, want %s", err, text)
		}
	}
}

func TestErrors(t *testing.T) {
	ns, table := host(t)
	ns.Remove("eth0")
	err := table.Bind(vip1)
	if text := "bind 192.0.2.101/32 on eth0: no such device (is it the interface's name? see ip link)"; err == nil || err.Error() != text {
		t.Errorf("without the interface: %v", err)
	}
	must(t, table.Unbind(vip1)) // no error if it is gone already
	ns.Wire("eth0", ns.Beside(), "eth0")
	must(t, table.Bind(vip1)) // another index, same name

	drop(t, unix.CAP_NET_ADMIN)
	weak := open(t) // the kernel checks the opener of a socket as well as the caller
	if err := weak.Bind(vip2); err == nil || err.Error() != "bind 192.0.2.102/32 on eth0: operation not permitted (needs CAP_NET_ADMIN)" {
		t.Errorf("bind without the capability: %v", err)
	}
	err = weak.Unbind(vip1)
	if err == nil || !errors.Is(err, unix.EPERM) || !strings.HasSuffix(err.Error(), "operation not permitted (needs CAP_NET_ADMIN)") {
		t.Errorf("unbind without the capability: %v", err)
	}
	if _, err := weak.FlushConntrack(vip1.IP); !errors.Is(err, unix.EPERM) {
		t.Errorf("flush without the capability: %v", err)
	}
	has(t, ns, loopback, bound1)
}

// drop takes a capability from the test's thread, which ends with the test.
func drop(t *testing.T, capability uint) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&header, &data[0]))
	data[0].Effective &^= 1 << capability
	must(t, unix.Capset(&header, &data[0]))
}

// withoutTag imitates a kernel before 5.18, which refuses the tag or drops it.
func withoutTag(table *Table, refuse bool) (requests *int) {
	requests = new(int)
	real := table.execute
	table.execute = func(request *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
		*requests++
		last := request.Data[len(request.Data)-1]
		if a, ok := last.(*nl.RtAttr); ok && a.Type == ifaProto {
			if refuse {
				return nil, unix.EINVAL
			}
			request.Data = request.Data[:len(request.Data)-1]
		}
		return real(request, answer)
	}
	return requests
}

func TestKernelWithoutTag(t *testing.T) {
	for name, refuse := range map[string]bool{"refused": true, "ignored": false} {
		t.Run(name+", new", func(t *testing.T) {
			ns, table := host(t)
			withoutTag(table, refuse)
			must(t, table.Bind(vip1))
			has(t, ns, loopback, bound1)
			if bound, err := table.Bound(); err != nil || len(bound) != 1 || bound[0].Ours || !bound[0].AsBoundByBind {
				t.Errorf("bound %+v, %v", bound, err)
			}
		})
		t.Run(name+", foreign", func(t *testing.T) {
			ns, table := host(t)
			requests := withoutTag(table, refuse)
			ns.Add("eth0", "192.0.2.101/32")
			must(t, table.Bind(vip1))
			*requests = 0
			must(t, table.Bind(vip1))
			if *requests != 2 { // one try to add, one list
				t.Errorf("%d requests to bind again", *requests)
			}
		})
	}
}

func TestListChangingTable(t *testing.T) {
	ns, table := host(t)
	ns.Add("lo", "192.0.2.101/32")
	real, interrupted := table.execute, 3
	table.execute = func(request *nl.NetlinkRequest, answer uint16) ([][]byte, error) {
		if request.Type == unix.RTM_GETADDR && interrupted > 0 {
			interrupted--
			return nil, nl.ErrDumpInterrupted
		}
		return real(request, answer)
	}
	must(t, table.Bind(vip1))
	has(t, ns, loopback, bound1)

	interrupted = 1000
	if _, err := table.Bound(); !errors.Is(err, nl.ErrDumpInterrupted) {
		t.Errorf("an unreliable list was believed: %v", err)
	}
}

func BenchmarkBindUnbind(b *testing.B) {
	ns, table := host(b)
	ns.Add("eth0", "192.0.2.11/24")
	var bind, unbind time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		must(b, table.Bind(vip1))
		middle := time.Now()
		must(b, table.Unbind(vip1))
		bind += middle.Sub(start)
		unbind += time.Since(middle)
	}
	b.ReportMetric(float64(bind.Microseconds())/float64(b.N), "bind-µs/op")
	b.ReportMetric(float64(unbind.Microseconds())/float64(b.N), "unbind-µs/op")
}
