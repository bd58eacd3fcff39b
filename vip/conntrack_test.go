package vip

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
)

// track puts a UDP connection into the namespace's table.
func track(t testing.TB, ns *nstest.Namespace, src, dst string, port uint16) {
	t.Helper()
	from, to := net.ParseIP(src).To4(), net.ParseIP(dst).To4()
	must(t, ns.Netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET,
		Forward:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: from, DstIP: to, SrcPort: port, DstPort: 5060},
		Reverse:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: to, DstIP: from, SrcPort: 5060, DstPort: port},
		TimeOut:    600,
	}))
}

func tracked(t *testing.T, ns *nstest.Namespace) []string {
	t.Helper()
	flows, err := ns.Netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	var all []string
	for _, f := range flows {
		all = append(all, f.Forward.SrcIP.String()+">"+f.Forward.DstIP.String())
	}
	slices.Sort(all)
	return all
}

func TestFlushConntrack(t *testing.T) {
	ns, table := host(t)
	track(t, ns, "198.51.100.7", "192.0.2.101", 5070)
	track(t, ns, "192.0.2.101", "198.51.100.7", 5071)
	track(t, ns, "192.0.2.101", "192.0.2.101", 5072)
	track(t, ns, "198.51.100.7", "192.0.2.102", 5073)
	track(t, ns, "192.0.2.11", "198.51.100.7", 5074)
	for i := range uint16(500) { // more than one message in the answer
		track(t, ns, "192.0.2.101", "198.51.100.8", 6000+i)
	}
	if deleted, err := table.FlushConntrack(vip1.IP); deleted != 503 || err != nil {
		t.Errorf("deleted %d, want 503, %v", deleted, err)
	}
	want := []string{"192.0.2.11>198.51.100.7", "198.51.100.7>192.0.2.102"}
	if got := tracked(t, ns); !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if deleted, err := table.FlushConntrack(vip1.IP); deleted != 0 || err != nil {
		t.Errorf("again: %d, %v", deleted, err)
	}
}

// Among many connections the kernel filters for the VIP's.
func TestFlushConntrackAmongMany(t *testing.T) {
	ns, table := host(t)
	for i := range uint16(fewConnections) {
		track(t, ns, "192.0.2.11", "198.51.100.7", 6000+i)
	}
	track(t, ns, "198.51.100.7", "192.0.2.101", 5070)
	track(t, ns, "192.0.2.101", "198.51.100.7", 5071)
	if deleted, err := table.FlushConntrack(vip1.IP); deleted != 2 || err != nil {
		t.Errorf("deleted %d, want 2, %v", deleted, err)
	}
	if left := len(tracked(t, ns)); left != fewConnections {
		t.Errorf("%d are left", left)
	}
}

// For many VIPs there is one walk through the table per address family.
func TestFlushConntrackOfMany(t *testing.T) {
	ns, table := host(t)
	var all []netip.Addr
	var managed []Address
	for i := range byte(20) {
		ip := netip.AddrFrom4([4]byte{192, 0, 2, 101 + i})
		all, managed = append(all, ip), append(managed, Address{ip, "eth0"})
		track(t, ns, "198.51.100.7", ip.String(), 5070)
		track(t, ns, ip.String(), "198.51.100.7", 5071)
	}
	track(t, ns, "192.0.2.11", "198.51.100.7", 5074)
	must(t, table.Manage(managed))
	if n := len(walks(all, true)); n != 1 {
		t.Errorf("%d walks", n)
	}
	if n := len(walks(append(all, netip.MustParseAddr("2001:db8::1")), true)); n != 2 {
		t.Errorf("%d walks for both families", n)
	}
	deleted, err := table.FlushConntrack(all[:19]...)
	must(t, err)
	if got := tracked(t, ns); deleted != 38 || !slices.Equal(got, []string{"192.0.2.11>198.51.100.7", "192.0.2.120>198.51.100.7", "198.51.100.7>192.0.2.120"}) {
		t.Errorf("deleted %d, left are %q", deleted, got)
	}
}

// A kernel that does not filter sends every connection; we filter ourselves.
func TestSideMatches(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.101")
	tuple := func(src, dst [4]byte) []byte {
		b := []byte{28, 0, 1, 0x80, 24, 0, 1, 0x80, 8, 0, 1, 0}
		b = append(b, src[:]...)
		b = append(b, 8, 0, 2, 0)
		b = append(b, dst[:]...)
		b[0], b[4] = 24, 20
		return b
	}
	vip, other := ip.As4(), [4]byte{198, 51, 100, 7}
	from, to := walks([]netip.Addr{ip}, true)[0], walks([]netip.Addr{ip}, true)[1]
	if m := tuple(vip, other); !from.matches(m) || to.matches(m) {
		t.Error("from the VIP")
	}
	if m := tuple(other, vip); from.matches(m) || !to.matches(m) {
		t.Error("to the VIP")
	}
	for n, m := 0, tuple(vip, vip); n < len(m); n++ {
		if to.matches(m[:n]) {
			t.Errorf("matched with %d bytes of %d", n, len(m))
		}
	}
}

// A host that tracks no connection needs no walk through its table.
func BenchmarkFlushConntrackOfNone(b *testing.B) {
	_, table := host(b)
	for b.Loop() {
		if _, err := table.FlushConntrack(vip1.IP); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFlushConntrack(b *testing.B) {
	ns, table := host(b)
	track(b, ns, "192.0.2.11", "198.51.100.7", 5074)
	for b.Loop() {
		if _, err := table.FlushConntrack(vip1.IP); err != nil {
			b.Fatal(err)
		}
	}
}
