package fence

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sipalive/platform"
)

var (
	vip      = netip.MustParseAddr("192.0.2.101")
	vip6     = netip.MustParseAddr("2001:db8::101")
	peer     = netip.MustParseAddr("192.0.2.12")
	node     = netip.MustParseAddr("192.0.2.11")
	peer6    = netip.MustParseAddr("2001:db8::12")
	node6    = netip.MustParseAddr("2001:db8::11")
	link6    = netip.MustParseAddr("fe80::b")
	all6     = netip.MustParseAddr("ff02::1")
	group6   = netip.MustParseAddr("ff02::1:ff00:101")
	nobody   = netip.AddrFrom4([4]byte{})
	nobody6  = netip.IPv6Unspecified()
	nearVIP  = netip.MustParseAddr("192.0.2.100")
	nearVIP6 = netip.MustParseAddr("2001:db8::1:101")
)

// loadOnly makes a fence whose programs are in the kernel, but on no device.
func loadOnly(t testing.TB, vips ...netip.Addr) *Fence {
	t.Helper()
	f := &Fence{slots: map[netip.Addr]*slot{}, record: &record{}}
	var err error
	f.deadlines, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 16, ValueSize: 8, MaxEntries: maxVIPs})
	must(t, err)
	f.drops, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	must(t, err)
	must(t, f.Manage(vips))
	must(t, f.load())
	t.Cleanup(f.releaseBPF)
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *Fence) verdict(t testing.TB, l layer, d direction, frame []byte) int {
	t.Helper()
	if len(frame) < 14 {
		t.Fatal("the kernel tries no frame below 14 bytes")
	}
	got, err := f.programs[l][d].Run(&ebpf.RunOptions{Data: frame})
	must(t, err)
	return int(int32(got))
}

// A rule is a frame and what happens to it while the VIP is not held.
type rule struct {
	name  string
	kind  uint16
	bytes []byte
	in    bool // dropped on its way in
	out   bool // dropped on its way out
}

const (
	kindARP  = 0x0806
	kindIPv4 = 0x0800
	kindIPv6 = 0x86dd
)

// rules lists the cases of §5.2, frame by frame.
func rules() []rule {
	udp := make([]byte, 30)
	return []rule{
		{"IP to the VIP", kindIPv4, ipv4Packet(peer, vip, 20), true, false},
		{"IP from the VIP", kindIPv4, ipv4Packet(vip, peer, 20), false, true},
		{"IP between others", kindIPv4, ipv4Packet(peer, node, 20), false, false},
		{"IP to an address beside the VIP", kindIPv4, ipv4Packet(peer, nearVIP, 20), false, false},
		{"IP from the VIP to itself", kindIPv4, ipv4Packet(vip, vip, 20), true, true},
		{"ARP asks for the VIP", kindARP, arpPacket(1, peer, vip), true, false},
		{"ARP probe for the VIP", kindARP, arpPacket(1, nobody, vip), true, false},
		{"ARP asks, as the VIP", kindARP, arpPacket(1, vip, peer), false, true},
		{"ARP answers, as the VIP", kindARP, arpPacket(2, vip, peer), false, true},
		{"ARP answers the VIP", kindARP, arpPacket(2, peer, vip), false, false},
		{"gratuitous ARP of the VIP, request form", kindARP, arpPacket(1, vip, vip), false, true},
		{"gratuitous ARP of the VIP, reply form", kindARP, arpPacket(2, vip, vip), false, true},
		{"ARP asks for another, same first half", kindARP, arpPacket(1, peer, nearVIP), false, false},
		{"ARP between others", kindARP, arpPacket(1, peer, node), false, false},
		{"ARP from an address like the VIP", kindARP, arpPacket(1, nearVIP, vip), true, false},
		{"IPv6 to the VIP", kindIPv6, ipv6Packet(17, peer6, vip6, udp), true, false},
		{"IPv6 from the VIP", kindIPv6, ipv6Packet(17, vip6, peer6, udp), false, true},
		{"IPv6 between others", kindIPv6, ipv6Packet(17, peer6, node6, udp), false, false},
		{"IPv6 to an address beside the VIP", kindIPv6, ipv6Packet(17, peer6, nearVIP6, udp), false, false},
		{"ping to the VIP", kindIPv6, ipv6Packet(58, peer6, vip6, append([]byte{128}, udp...)), true, false},
		{"solicitation for the VIP, multicast", kindIPv6, neighbour(135, peer6, group6, vip6), true, false},
		{"solicitation for the VIP, unicast", kindIPv6, neighbour(135, peer6, vip6, vip6), true, false},
		{"probe for the VIP (DAD)", kindIPv6, neighbour(135, nobody6, group6, vip6), true, false},
		{"solicitation as the VIP", kindIPv6, neighbour(135, vip6, group6, peer6), false, true},
		{"advertisement of the VIP, from it", kindIPv6, neighbour(136, vip6, all6, vip6), false, true},
		{"advertisement of the VIP, from the link's address", kindIPv6, neighbour(136, link6, all6, vip6), false, true},
		{"advertisement of the VIP, to it", kindIPv6, neighbour(136, peer6, vip6, vip6), true, true},
		{"solicitation between others", kindIPv6, neighbour(135, peer6, all6, node6), false, false},
		{"advertisement of another", kindIPv6, neighbour(136, node6, all6, node6), false, false},
		{"UDP whose payload looks like a solicitation", kindIPv6, ipv6Packet(17, peer6, node6, neighbour(135, peer6, all6, vip6)[40:]), false, false},
		{"something else", 0x88cc, make([]byte, 60), false, false},
	}
}

func TestRules(t *testing.T) {
	f := loadOnly(t, vip, vip6)
	future := platform.BootNow() + int64(time.Hour)
	states := []struct {
		name    string
		until   int64
		fenced  bool
		managed bool
	}{
		{"never held", 0, true, true},
		{"held", future, false, true},
		{"past its deadline", platform.BootNow() - 1, true, true},
		{"held for ever", 1<<63 - 1, false, true},
		{"released", 0, true, true},
		{"not configured", 0, false, false},
	}
	for _, s := range states {
		if s.managed {
			must(t, f.Set(vip, s.until))
			must(t, f.Set(vip6, s.until))
		} else {
			must(t, f.Manage(nil))
		}
		for _, r := range rules() {
			for _, tags := range [][]uint16{nil, {0x8100}, {0x88a8}, {0x88a8, 0x8100}} {
				frame := etherFrame(r.kind, r.bytes, tags...)
				for d, dropped := range map[direction]bool{ingress: r.in, egress: r.out} {
					want := verdictNext
					if s.fenced && dropped {
						want = verdictDrop
					}
					if got := f.verdict(t, ethernet, d, frame); got != want {
						t.Errorf("%s, %s, %s, tags %x: verdict %d, want %d", s.name, r.name, d, tags, got, want)
					}
				}
			}
		}
	}
}

// A frame that ends too early passes, or is dropped for the part it has.
func TestShortFrames(t *testing.T) {
	f := loadOnly(t, vip, vip6)
	for _, r := range rules() {
		whole := etherFrame(r.kind, r.bytes, 0x8100)
		for n := 14; n < len(whole); n++ {
			for _, d := range []direction{ingress, egress} {
				if got := f.verdict(t, ethernet, d, whole[:n]); got != verdictNext && got != verdictDrop {
					t.Fatalf("%s cut to %d bytes, %s: verdict %d", r.name, n, d, got)
				}
			}
		}
	}
}

func TestDrops(t *testing.T) {
	f := loadOnly(t, vip)
	for range 3 {
		f.verdict(t, ethernet, ingress, etherFrame(kindIPv4, ipv4Packet(peer, vip, 0)))
	}
	f.verdict(t, ethernet, egress, etherFrame(kindIPv4, ipv4Packet(vip, peer, 0)))
	f.verdict(t, ethernet, egress, etherFrame(kindIPv4, ipv4Packet(node, peer, 0)))
	if in, out := f.Drops(); in != 3 || out != 1 {
		t.Errorf("%d and %d dropped, want 3 and 1", in, out)
	}
}

func TestSetUnknown(t *testing.T) {
	f := loadOnly(t, vip)
	const want = "set the deadline of 192.0.2.12: not a configured VIP"
	if err := f.Set(peer, 1); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A renewal moves the end of a lease in the kernel and must not make work for the garbage
// collector.
func TestSetAllocatesNothing(t *testing.T) {
	f := loadOnly(t, vip, vip6)
	until := platform.BootNow()
	if n := testing.AllocsPerRun(100, func() {
		until++
		must(t, f.Set(vip, until))
	}); n > 0 {
		t.Errorf("%v allocations for an update", n)
	}
}

func BenchmarkSet(b *testing.B) {
	f := loadOnly(b, vip, vip6)
	until := platform.BootNow()
	b.ReportAllocs()
	for b.Loop() {
		until++
		if err := f.Set(vip, until); err != nil {
			b.Fatal(err)
		}
	}
}
