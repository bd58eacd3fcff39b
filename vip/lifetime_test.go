package vip

import (
	"bytes"
	"encoding/binary"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
)

// A watched address is what a program that follows addresses sees of one: the message
// without the lifetime itself.
type watched struct {
	kind    uint16
	header  [unix.SizeofIfAddrmsg]byte
	rest    string // attributes other than IFA_CACHEINFO
	created uint32 // ifa_cacheinfo.cstamp
	valid   uint32
}

func watchedOf(t *testing.T, m syscall.NetlinkMessage) watched {
	t.Helper()
	w := watched{kind: m.Header.Type, header: [unix.SizeofIfAddrmsg]byte(m.Data)}
	var rest bytes.Buffer
	eachAttribute(m.Data[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		if kind == unix.IFA_CACHEINFO {
			w.valid, w.created = binary.NativeEndian.Uint32(value[4:]), binary.NativeEndian.Uint32(value[8:])
			return
		}
		rest.WriteByte(byte(kind))
		rest.Write(value)
	})
	w.rest = rest.String()
	return w
}

// A renewal is one message that repeats the last one, about an address of the same age.
// So a program that compares sees no new address.
func TestRenewalIsNoNewAddress(t *testing.T) {
	ns, table := host(t)
	watch, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	must(t, err)
	defer watch.Close()
	must(t, table.BindFor(vip1, 60*time.Second))
	must(t, table.Renew(vip1, 61*time.Second))
	must(t, table.Renew(vip1, 62*time.Second))
	ns.Add("eth1", "198.51.100.1/24") // a mark in the stream
	var addresses []watched
	routes := 0
	for done := false; !done; {
		messages, _, err := watch.Receive()
		must(t, err)
		for _, m := range messages {
			if m.Header.Type == unix.RTM_NEWROUTE || m.Header.Type == unix.RTM_DELROUTE {
				routes++
				continue
			}
			if e, ok := parseEntry(m.Data); ok && e.local != vip1.IP {
				done = true
				break
			}
			addresses = append(addresses, watchedOf(t, m))
		}
	}
	if len(addresses) != 3 {
		t.Fatalf("%d messages, want one for each of bind, renew, renew", len(addresses))
	}
	if got := []uint32{addresses[0].valid, addresses[1].valid, addresses[2].valid}; !slices.Equal(got, []uint32{60, 61, 62}) {
		t.Errorf("lifetimes %v", got)
	}
	for i := range addresses {
		addresses[i].valid = 0
	}
	if addresses[0] != addresses[1] || addresses[1] != addresses[2] {
		t.Errorf("a renewal looks like another address: %+v", addresses)
	}
	if routes > 1 {
		t.Errorf("%d changes of routes, want the one of the bind", routes)
	}
}

func TestLifetimeEnds(t *testing.T) {
	ns, table := host(t)
	for attempt := 0; !renewed(t, ns, table); attempt++ {
		if attempt == 5 {
			t.Fatal("the machine stands still too often to tell anything")
		}
		must(t, table.Unbind(vip1))
	}
	last := time.Now()
	must(t, table.Renew(vip1, 900*time.Millisecond)) // rounded up
	for len(ns.Addresses()) > 1 {
		if time.Since(last) > 10*time.Second {
			t.Fatal("the address outlives its lifetime")
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(last)
	t.Logf("a lifetime of 1 s took %v", took)
	if took < 900*time.Millisecond {
		t.Errorf("gone after %v", took)
	}
	must(t, table.Renew(vip1, time.Second))
	has(t, ns, loopback, bound1)
	must(t, table.Unbind(vip1))
	has(t, ns, loopback)
}

// renewed binds for a second and goes on renewing for longer than that. It returns false if
// the machine itself stood still for nearly as long.
func renewed(t *testing.T, ns *nstest.Namespace, table *Table) bool {
	t.Helper()
	last := time.Now()
	must(t, table.BindFor(vip1, time.Second))
	for begun := last; last.Sub(begun) < 2500*time.Millisecond; {
		now := time.Now()
		err, there := table.Renew(vip1, time.Second), len(ns.Addresses())
		if time.Since(last) > 900*time.Millisecond {
			return false
		}
		must(t, err)
		if there != 2 { // with the loopback's
			t.Fatalf("%d addresses after a renewal", there)
		}
		last = now
		time.Sleep(50 * time.Millisecond)
	}
	return true
}

// BindFor changes nothing if the address is already bound for a limited time. Bound with
// an end and bound without one are different states.
func TestBindForSettles(t *testing.T) {
	_, table := host(t)
	permanent := func() bool {
		t.Helper()
		all, err := table.list()
		must(t, err)
		i := slices.IndexFunc(all, func(e entry) bool { return e.local == vip1.IP })
		if b, err := table.Bound(); err != nil || len(b) != 1 || !b[0].AsBoundByBind {
			t.Errorf("%+v, %v", b, err)
		}
		return all[i].flags&unix.IFA_F_PERMANENT != 0
	}
	must(t, table.Bind(vip1))
	if !permanent() {
		t.Error("Bind made an end")
	}
	must(t, table.BindFor(vip1, time.Minute))
	if permanent() {
		t.Error("BindFor made no end")
	}
	watch, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR)
	must(t, err)
	defer watch.Close()
	must(t, table.BindFor(vip1, time.Hour))
	must(t, table.Bind(vip1))
	messages, _, err := watch.Receive()
	must(t, err)
	if w := watchedOf(t, messages[0]); w.valid != uint32(forever) {
		t.Errorf("binding again for a time says %+v", w)
	}
	if !permanent() {
		t.Error("Bind left an end")
	}
}

func TestRenewErrors(t *testing.T) {
	_, table := host(t)
	for _, c := range []struct {
		a    Address
		want string
	}{
		{Address{vip1.IP, "eth9"}, "renew 192.0.2.101/32 on eth9: no such device (is it the interface's name? see ip link)"},
		{Address{vip1.IP.Next().Next(), "eth0"}, "renew 192.0.2.103/32 on eth0: not a configured VIP (see ip addresses in the configuration)"},
	} {
		if err := table.Renew(c.a, time.Second); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func BenchmarkRenew(b *testing.B) {
	_, table := host(b)
	must(b, table.BindFor(vip1, time.Minute))
	for b.Loop() {
		must(b, table.Renew(vip1, time.Minute))
	}
}
