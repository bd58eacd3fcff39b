package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/lab"
)

// alien is a machine with a MAC that no host has, on pbx1's switch port.
type alien struct {
	s   *site
	t   *testing.T
	mac net.HardwareAddr
	fd  int
}

func (s *site) alien(t *testing.T) *alien {
	t.Helper()
	a := &alien{s: s, t: t, mac: net.HardwareAddr{2, 0xaa, 0xbb, 0xcc, 0xdd, 0xe6}}
	s.must(t, s.Node(0).Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		ipv6 := lab.NetworkOrder(unix.ETH_P_IPV6)
		if a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(ipv6)); err != nil {
			return err
		}
		// Bypass pbx1's own fence, which would drop the frames.
		if err := unix.SetsockoptInt(a.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(a.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
			return err
		}
		return unix.Bind(a.fd, &unix.SockaddrLinklayer{Protocol: ipv6, Ifindex: link.Attrs().Index})
	}))
	t.Cleanup(func() { unix.Close(a.fd) })
	return a
}

// says sends a neighbour discovery message to a multicast group.
func (a *alien) says(from, to netip.Addr, m ndp.Message) {
	a.t.Helper()
	body, err := ndp.MarshalMessageChecksum(m, from, to)
	a.s.must(a.t, err)
	group := to.As16()
	frame := slices.Concat([]byte{0x33, 0x33, group[12], group[13], group[14], group[15]}, a.mac, []byte{0x86, 0xdd, 0x60, 0, 0, 0},
		[]byte{byte(len(body) >> 8), byte(len(body)), unix.IPPROTO_ICMPV6, 255}, from.AsSlice(), to.AsSlice(), body)
	_, err = unix.Write(a.fd, frame)
	a.s.must(a.t, err)
}

// told waits for an advertisement of an address to all nodes, and returns the MAC in it.
func (a *alien) told(of netip.Addr) (mac net.HardwareAddr) {
	a.t.Helper()
	await(a.t, "an advertisement of "+of.String(), func(context.Context) error {
		b := make([]byte, 2048)
		n, err := unix.Read(a.fd, b)
		if err != nil || n < 54 || b[20] != unix.IPPROTO_ICMPV6 {
			return fmt.Errorf("none yet: %v", err)
		}
		m, err := ndp.ParseMessage(b[54:n])
		na, is := m.(*ndp.NeighborAdvertisement)
		if !is || na.TargetAddress != of || !slices.Equal(b[6:12], []byte(a.s.Node(1).MAC)) {
			return fmt.Errorf("heard %+v: %v", m, err)
		}
		mac = net.HardwareAddr(slices.Clone(b[6:12]))
		return nil
	})
	return mac
}

// neighbour6 returns the router's neighbour entry for vip2.
func (s *site) neighbour6(t *testing.T) (mac net.HardwareAddr) {
	t.Helper()
	s.must(t, s.Router().Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all, err := netlink.NeighList(link.Attrs().Index, unix.AF_INET6)
		for _, n := range all {
			if n.IP.Equal(s.VIPs[1].AsSlice()) {
				mac = n.HardwareAddr
			}
		}
		return err
	}))
	return mac
}

// rivalsOf6 returns a node's events about a rival of vip2 since a moment.
func (s *site) rivalsOf6(t *testing.T, node int, since time.Time) (found []control.Event) {
	t.Helper()
	events, err := s.Client(node).Events(context.Background(), 1000)
	s.must(t, err)
	for _, e := range events {
		if e.Kind == control.KindRival && e.VIP == "vip2" && !e.Time.Before(since.Truncate(time.Millisecond)) {
			found = append(found, e)
		}
	}
	return found
}

// duplicate6: a machine that looks for duplicates before it takes vip2 (RFC 4862 5.4) is
// told that the address is taken, and is no rival. A machine that takes it all the same
// is a rival: that raises an alarm with its MAC and moves nothing, and soon the router is
// right again.
func (s *site) duplicate6(t *testing.T, at time.Duration) {
	s.routers(t, 1, "proven", "proven")
	since := time.Now()
	a, vip, allNodes := s.alien(t), s.VIPs[1], netip.MustParseAddr("ff02::1")
	group, err := ndp.SolicitedNodeMulticast(vip)
	s.must(t, err)
	a.says(netip.IPv6Unspecified(), group, &ndp.NeighborSolicitation{TargetAddress: vip})
	if mac := a.told(vip); !slices.Equal(mac, s.Node(1).MAC) {
		t.Errorf("told that vip2 is at %v", mac)
	}
	watch(300 * time.Millisecond)
	if found := s.rivalsOf6(t, 1, since); len(found) > 0 {
		t.Errorf("who looks for duplicates is told to be a rival: %+v", found)
	}
	claimed := time.Now()
	for range 15 {
		a.says(vip, allNodes, &ndp.NeighborAdvertisement{Override: true, TargetAddress: vip,
			Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: a.mac}}})
		time.Sleep(100 * time.Millisecond)
	}
	last := lab.Now()
	await(t, "the router to be right", func(context.Context) error {
		if mac := s.neighbour6(t); !slices.Equal(mac, s.Node(1).MAC) {
			return fmt.Errorf("it points to %v", mac)
		}
		return nil
	})
	t.Logf("router right %v after the rival's last claim", lab.Now()-last)
	found := s.rivalsOf6(t, 1, since)
	if len(found) == 0 {
		t.Fatal("told of no rival")
	}
	if e, want := found[0], fmt.Sprintf("vip2: %v claims %v; it stays here", a.mac, vip); e.Time.Sub(claimed) > time.Second || e.Text != want {
		t.Errorf("told after %v: %q, want %q", e.Time.Sub(claimed), e.Text, want)
	}
	s.hears(t, 1, "pbx2", lab.Now())
	await(t, "the rival's end", func(context.Context) error {
		if !slices.ContainsFunc(s.rivalsOf6(t, 1, since), func(e control.Event) bool { return strings.Contains(e.Text, "silent again, after 15 claims") }) {
			return fmt.Errorf("not told")
		}
		return nil
	})
	s.silent(t, 0, at, 20*time.Millisecond)
}
