package arp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	mdarp "github.com/mdlayher/arp"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
	"sipalive/platform/stalltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	vip1 = netip.MustParseAddr("192.0.2.101")
	vip2 = netip.MustParseAddr("192.0.2.102")
)

// wire makes two namespaces joined by their eth0, and an announcer in the first one.
func wire(t testing.TB, o Options) (near, far *nstest.Namespace, a *Announcer) {
	t.Helper()
	near = nstest.Enter(t)
	far = near.Beside()
	near.Wire("eth0", far, "eth0")
	if o.Refresh == 0 {
		o.Refresh = time.Minute
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return near, far, a
}

// sniff listens to ARP at the far end's eth0.
func sniff(t testing.TB, far *nstest.Namespace) *packet.Conn {
	t.Helper()
	var conn *packet.Conn
	far.Do(func() {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// next returns the next ARP frame on the wire, or nil if none comes within that time.
func next(t testing.TB, conn *packet.Conn, within time.Duration) []byte {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1600)
	n, _, err := conn.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func isAnnouncement(t testing.TB, frame []byte, op byte, mac net.HardwareAddr, ip netip.Addr) {
	t.Helper()
	target := make([]byte, 6)
	if op == 2 {
		target = mac
	}
	want := slices.Concat[[]byte](
		[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, []byte{0x08, 0x06},
		[]byte{0, 1, 0x08, 0x00, 6, 4, 0, op},
		mac, ip.AsSlice(), target, ip.AsSlice())
	if !bytes.Equal(frame, want) {
		t.Fatalf("frame\n%x, want\n%x", frame, want)
	}
}

func TestAnnounce(t *testing.T) {
	near, far, a := wire(t, Options{})
	conn := sniff(t, far)
	if err := a.Warm("eth0"); err != nil {
		t.Fatal(err)
	}
	if err := a.Announce(vip1, "eth0"); err != nil {
		t.Fatal(err)
	}
	mac := near.MAC("eth0")
	request, reply := next(t, conn, 5*time.Second), next(t, conn, 5*time.Second)
	isAnnouncement(t, request, 1, mac, vip1)
	isAnnouncement(t, reply, 2, mac, vip1)
	if got := a.Stats(); got != (Stats{Sent: 2}) {
		t.Errorf("stats %+v", got)
	}
	// And as another parser reads them.
	for i, f := range [][]byte{request, reply} {
		var p mdarp.Packet
		if err := p.UnmarshalBinary(f[14:]); err != nil || p.Operation != mdarp.Operation(i+1) ||
			p.SenderIP != vip1 || p.TargetIP != vip1 || p.SenderHardwareAddr.String() != mac.String() {
			t.Errorf("parsed %+v, %v", p, err)
		}
	}
}

// An interface goes down, comes back, changes its MAC and is made again.
func TestAnnounceSurvivesTheInterface(t *testing.T) {
	near, far, a := wire(t, Options{})
	if err := a.Announce(vip1, "eth0"); err != nil {
		t.Fatal(err)
	}
	near.Down("eth0")
	err := a.Announce(vip1, "eth0")
	if text := "announce 192.0.2.101 on eth0: network is down (ip link set it up)"; err == nil || err.Error() != text {
		t.Errorf("down: %v", err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	if err := near.Netlink.LinkSetHardwareAddr(near.Link("eth0"), mac); err != nil {
		t.Fatal(err)
	}
	near.Up("eth0")
	near.Ready("eth0")
	conn := sniff(t, far)
	if err := a.Announce(vip1, "eth0"); err != nil {
		t.Fatal(err)
	}
	isAnnouncement(t, next(t, conn, 5*time.Second), 1, mac, vip1)

	near.Remove("eth0")
	err = a.Announce(vip1, "eth0")
	if text := "announce 192.0.2.101 on eth0: no such device (is it the interface's name? see ip link)"; err == nil || err.Error() != text {
		t.Errorf("removed: %v", err)
	}
	if err := a.Warm("eth0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("warm without an interface: %v", err)
	}
	near.Wire("eth0", far, "eth0")
	conn = sniff(t, far)
	if err := a.Announce(vip1, "eth0"); err != nil {
		t.Fatal(err)
	}
	isAnnouncement(t, next(t, conn, 5*time.Second), 1, near.MAC("eth0"), vip1)
	if got := a.Stats(); got.Errors != 2 {
		t.Errorf("stats %+v", got)
	}
}

func TestAnnounceRefuses(t *testing.T) {
	_, _, a := wire(t, Options{})
	if err := a.Announce(netip.Addr{}, "eth0"); err == nil {
		t.Error("announced no address")
	}
	if err := a.Announce(vip1, "lo"); err == nil || !strings.HasSuffix(err.Error(), "(only Ethernet interfaces have ARP)") {
		t.Errorf("loopback: %v", err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a refresh of 0 is a flood")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Announce(vip1, "eth0"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	a.Start(vip1, "eth0") // starts nothing: goleak would see it
	a.Stop(vip1)

	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	if err := unix.Capset(&header, &data[0]); err != nil { // this thread ends with the test
		t.Fatal(err)
	}
	_, err := New(Options{Refresh: time.Second})
	if text := "open raw socket for ARP: operation not permitted (needs CAP_NET_RAW)"; err == nil || err.Error() != text {
		t.Errorf("without the capability: %v", err)
	}
}

// A real neighbour that knew the VIP at another MAC believes either form.
func TestNeighbourFollows(t *testing.T) {
	for name, op := range map[string]uint16{"both": 0, "request": operationRequest, "reply": operationReply} {
		t.Run(name, func(t *testing.T) {
			near, far, a := wire(t, Options{})
			far.Add("eth0", "192.0.2.1/24")
			old := &netlink.Neigh{
				LinkIndex: far.Link("eth0").Attrs().Index, Family: unix.AF_INET, IP: vip1.AsSlice(),
				HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, State: netlink.NUD_STALE,
			}
			if err := far.Netlink.NeighSet(old); err != nil {
				t.Fatal(err)
			}
			// For 1 s (locktime) a neighbour may keep what it learnt last.
			mac := near.MAC("eth0")
			deadline := time.Now().Add(10 * time.Second)
			for {
				announce(t, a, op, mac)
				neighbours, err := far.Netlink.NeighList(old.LinkIndex, unix.AF_INET)
				if err != nil {
					t.Fatal(err)
				}
				if slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
					return n.IP.Equal(old.IP) && bytes.Equal(n.HardwareAddr, mac)
				}) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("neighbours %v, want %s at %s", neighbours, vip1, mac)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

// announce sends both forms (op 0), or only the form op.
func announce(t *testing.T, a *Announcer, op uint16, mac net.HardwareAddr) {
	t.Helper()
	if op == 0 {
		if err := a.Announce(vip1, "eth0"); err != nil {
			t.Fatal(err)
		}
		return
	}
	f := announcement(op, hardwareAddr(mac), vip1)
	err := a.socket.with(func(fd int) error {
		index, _, err := look(fd, "eth0")
		if err != nil {
			return err
		}
		return transmit(fd, index, f[:])
	})
	if err != nil {
		t.Fatal(err)
	}
}

// However busy the schedules are, no frame leaves after Stop has returned.
func TestStopOnTheWire(t *testing.T) {
	_, far, a := wire(t, Options{Refresh: time.Microsecond})
	a.burst, a.limit = nil, nil
	conn := sniff(t, far)
	for round := range 50 {
		a.Start(vip1, "eth0")
		a.Start(vip2, "eth0")
		before := a.Stats().Sent
		for deadline := time.Now().Add(10 * time.Second); a.Stats().Sent < before+10; {
			if time.Now().After(deadline) {
				t.Fatal("nothing is sent")
			}
		}
		a.Stop(vip1)
		a.Stop(vip2)
		sent := a.Stats().Sent
		deadline := time.Now().Add(10 * time.Second)
		for next(t, conn, 5*time.Millisecond) != nil { // frames sent before Stop
			if time.Now().After(deadline) {
				t.Fatalf("round %d: still sending", round)
			}
		}
		if now := a.Stats().Sent; now != sent {
			t.Fatalf("round %d: %d frames after Stop", round, now-sent)
		}
	}
}

// The schedule as a neighbour hears it.
func TestScheduleOnTheWire(t *testing.T) {
	_, far, a := wire(t, Options{})
	conn := sniff(t, far)
	if err := a.Announce(vip1, "eth0"); err != nil {
		t.Fatal(err)
	}
	stood, start := stalltest.Watch(t), time.Now()
	a.Start(vip1, "eth0")
	defer a.Stop(vip1)
	for _, due := range []time.Duration{0, 100 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond} {
		for _, op := range []byte{1, 2} {
			f := next(t, conn, 10*time.Second)
			if len(f) != frameLength || f[21] != op {
				t.Fatalf("at %v: frame %x, want form %d", time.Since(start), f, op)
			}
		}
		if now := time.Since(start); now < due || now > due+900*time.Millisecond+stood() {
			t.Errorf("announced after %v, want %v", now, due)
		}
	}
}

func BenchmarkAnnounce(b *testing.B) {
	_, _, a := wire(b, Options{})
	a.limit = nil
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Announce(vip1, "eth0"); err != nil {
			b.Fatal(err)
		}
	}
}
