package arp

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"sipalive/platform/nstest"
)

// A datagram goes to the gateway's MAC address with the peer's IP address. A kernel at
// the other end receives it whole, in fragments if it is long.
func TestRelay(t *testing.T) {
	for name, site := range map[string]struct{ own, gateway, peer netip.Prefix }{
		"IPv4": {netip.MustParsePrefix("192.0.2.11/24"), netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.12/32")},
		"IPv6": {netip.MustParsePrefix("2001:db8::11/64"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::12/128")},
	} {
		t.Run(name, func(t *testing.T) {
			near := nstest.Enter(t)
			far := near.Beside()
			near.Wire("eth0", far, "eth0")
			for n, addrs := range map[*nstest.Namespace][]netip.Prefix{near: {site.own}, far: {site.gateway, site.peer}} {
				n.Sysctl("net/ipv6/conf/eth0/accept_dad", "0")
				for _, a := range addrs {
					n.Add("eth0", a.String())
				}
			}
			near.DefaultRoute("eth0", site.gateway.Addr())
			// The peer's port, as if the gateway had already passed the datagram on.
			var conn *net.UDPConn
			far.Do(func() {
				for end := time.Now().Add(10 * time.Second); conn == nil; time.Sleep(time.Millisecond) {
					var err error // an IPv6 address takes a moment
					if conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: site.peer.Addr().AsSlice(), Port: 7946}); err != nil && time.Now().After(end) {
						t.Fatal(err)
					}
				}
			})
			defer conn.Close()
			relaySizes(t, conn, site.own.Addr(), site.peer.Addr())
		})
	}
}

func relaySizes(t *testing.T, conn *net.UDPConn, own, peer netip.Addr) {
	t.Helper()
	a, err := New(Options{Refresh: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	w, err := OpenWatch(WatchOptions{Announcer: a, Refresh: time.Minute, Now: bootNow, Alarms: openAlarms(t), Relay: RelayLink{Interface: "eth0", Own: own}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Relay(7946, netip.AddrPortFrom(peer, 7946), []byte("too early")); err == nil || w.Stats().RelayErrors != 1 {
		t.Errorf("relayed by a gateway that is not known: %v, %+v", err, w.Stats())
	}
	run(t, w)
	for end := time.Now().Add(20 * time.Second); w.via.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the gateway's MAC address was not learnt")
		}
	}
	for _, size := range []int{1, 500, 1192, 1193, 5000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := w.Relay(7946, netip.AddrPortFrom(peer, 7946), want); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 9000)
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], want) || from.Addr().Unmap() != own || from.Port() != 7946 {
			t.Errorf("%d bytes: %d from %v, %v", size, n, from, err)
		}
	}
}
