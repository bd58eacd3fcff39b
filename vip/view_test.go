package vip

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// A View shows what Bind made and what somebody else made, as it was at the moment of
// reading.
func TestView(t *testing.T) {
	ns, table := host(t)
	must(t, table.Bind(vip1))
	ns.Add("eth1", vip2.IP.String()+"/32")
	v, err := table.View()
	must(t, err)
	for _, c := range []struct {
		a                         Address
		absent, settled, endsSoon bool
	}{
		{vip1, false, true, false},
		{Address{vip1.IP, "eth1"}, false, false, false},
		{vip2, false, false, false},
	} {
		if v.Absent(c.a.IP) != c.absent || v.Settled(c.a, false) != c.settled || v.Settled(c.a, true) != c.endsSoon {
			t.Errorf("%v: absent %v, settled %v, as one that ends %v", c.a, v.Absent(c.a.IP), v.Settled(c.a, false), v.Settled(c.a, true))
		}
	}
	must(t, table.Unbind(vip1))
	must(t, table.BindFor(vip1, 60*time.Second))
	must(t, table.Unbind(vip2))
	v, err = table.View()
	must(t, err)
	if v.Settled(vip1, false) || !v.Settled(vip1, true) || !v.Absent(vip2.IP) {
		t.Error("bound for a time is not what is seen")
	}
	ns.Add("eth1", vip1.IP.String()+"/32")
	if v, err = table.View(); err != nil || v.Settled(vip1, true) {
		t.Errorf("settled with a copy on another interface, %v", err)
	}
	var none *View
	if none.Settled(vip1, true) || none.Absent(vip1.IP) {
		t.Error("no view shows something")
	}
}

// Bind lists the addresses to look for other copies, unless a View showed none: then it
// makes only one request.
func TestBindSeeing(t *testing.T) {
	ns, table := host(t)
	v, err := table.View()
	must(t, err)
	requests, real := 0, table.execute
	table.execute = func(r *nl.NetlinkRequest, answer uint16) ([][]byte, error) { requests++; return real(r, answer) }
	must(t, table.BindSeeing(v, vip1))
	if requests != 1 {
		t.Errorf("%d requests for an address that nobody has", requests)
	}
	has(t, ns, loopback, bound1)
	ns.Add("eth1", vip2.IP.String()+"/32")
	v, err = table.View()
	must(t, err)
	must(t, table.BindForSeeing(v, vip2, 60*time.Second))
	has(t, ns, loopback, bound1, "eth0 192.0.2.102/32")
}

// Unbind also lists them, unless a View showed only one copy, where it belongs.
func TestUnbindSeeing(t *testing.T) {
	ns, table := host(t)
	must(t, table.Bind(vip1))
	must(t, table.Bind(vip2))
	ns.Add("eth1", vip2.IP.String()+"/32")
	v, err := table.View()
	must(t, err)
	requests, real := 0, table.execute
	table.execute = func(r *nl.NetlinkRequest, answer uint16) ([][]byte, error) { requests++; return real(r, answer) }
	must(t, table.UnbindSeeing(v, vip1))
	if requests != 1 {
		t.Errorf("%d requests for an address that is there once", requests)
	}
	must(t, table.UnbindSeeing(v, vip2))
	has(t, ns, loopback)
}
