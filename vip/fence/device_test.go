package fence

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// Sync or Cover fences a new device. A device that disappears does no harm, and a fence
// that somebody removed comes back.
func TestDevicesComeAndGo(t *testing.T) {
	hooked(t, func(t *testing.T, s *site) {
		f := s.open(0)
		has := func(want ...string) {
			t.Helper()
			if got := f.Attached(); !slices.Equal(got, want) {
				t.Errorf("attached to %q, want %q", got, want)
			}
		}
		has("eth0")
		s.ns.Wire("eth1", s.far, "eth1")
		s.wantAttached("eth1")
		must(t, f.Sync())
		has("eth0", "eth1")
		s.wantAttached("eth1", s.ours()...)
		s.wantAttached("lo")
		s.ns.Remove("eth1")
		must(t, f.Sync())
		has("eth0")
		s.ns.Wire("eth2", s.far, "eth2")
		must(t, f.Cover("eth0"))
		has("eth0")
		must(t, f.Cover("eth2"))
		has("eth0", "eth2")
		s.wantAttached("eth2", s.ours()...)
		for _, d := range []direction{ingress, egress} {
			must(t, f.hooks[0].detach(s.index("eth2"), d))
		}
		s.wantAttached("eth2")
		must(t, f.Sync())
		s.wantAttached("eth2", s.ours()...)
		const loopback = "fence lo: not a kind of device that can be fenced"
		if err := f.Cover("lo"); err == nil || err.Error() != loopback {
			t.Errorf("%v, want %s", err, loopback)
		}
		const gone = "fence eth9: no such device"
		if err := f.Cover("eth9"); err == nil || err.Error() != gone {
			t.Errorf("%v, want %s", err, gone)
		}
		must(t, f.Close(true))
		s.wantAttached("eth2")
		s.nothingLeft()
	})
}

// A tunnel's packets begin with the IP header.
func TestTunnel(t *testing.T) {
	hooked(t, func(t *testing.T, s *site) {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN,
			Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE, Queues: 1}
		must(t, s.ns.Netlink.LinkAdd(tun))
		t.Cleanup(func() { tun.Fds[0].Close() })
		s.ns.Up("tun0")
		f := s.open(0)
		s.wantAttached("tun0", s.ours()...)
		beyond := netip.MustParseAddr("198.51.100.1")
		must(t, s.ns.Netlink.RouteAdd(&netlink.Route{LinkIndex: s.index("tun0"), Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: beyond.AsSlice(), Mask: net.CIDRMask(32, 32)}}))
		says := func(from netip.Addr) {
			c, e := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(beyond, 9)))
			must(t, e)
			defer c.Close()
			_, _ = c.Write([]byte("x")) // ENOBUFS if it is dropped
		}
		sources := func() (list []string) {
			says(vip)
			says(node)
			buffer := make([]byte, 2048)
			for {
				must(t, tun.Fds[0].SetReadDeadline(time.Now().Add(patience)))
				n, e := tun.Fds[0].Read(buffer)
				must(t, e)
				if n < 20 || buffer[0]>>4 != 4 || buffer[9] != unix.IPPROTO_UDP {
					continue // the host solicits routers and sends ICMP errors
				}
				from, _ := netip.AddrFromSlice(buffer[12:16])
				if list = append(list, from.String()); from == node {
					return list
				}
			}
		}
		if got := sources(); !slices.Equal(got, []string{node.String()}) {
			t.Errorf("not held: %q got out", got)
		}
		in, _ := f.Drops()
		_, err := tun.Fds[0].Write(ipv4Packet(beyond, vip, 4))
		must(t, err)
		_, err = tun.Fds[0].Write(ipv4Packet(beyond, node, 4))
		must(t, err)
		if now, _ := f.Drops(); now != in+1 {
			t.Errorf("%d of two packets dropped, want the one to the VIP", now-in)
		}
		must(t, f.Set(vip, platform.BootNow()+int64(time.Hour)))
		if got := sources(); !slices.Equal(got, []string{vip.String(), node.String()}) {
			t.Errorf("held: %q got out", got)
		}
		must(t, f.Close(true))
	})
}
