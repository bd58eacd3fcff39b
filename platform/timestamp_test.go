package platform

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
)

// TestRateOfAClock measures a clock that is fast or slow by a known rate, over midnight.
// Answers take 0.1 to 0.5 ms each way. The true rate must lie within the bounds.
func TestRateOfAClock(t *testing.T) {
	for _, ppm := range []float64{0, 100, -800, 2000} {
		s := stamps{}
		shows := func(here int64) int64 {
			there := float64(here)*(1+ppm/1e6)/1e6 + dayMillis - 1500
			return s.unwrap(int64(there) % dayMillis)
		}
		burst := func(at int64) (b bounds) {
			for i := range int64(stampsPerBurst) {
				sent := at + i*int64(stampPace)
				arrived := sent + 100_000 + i*37_000%400_000
				b.add(sent, arrived+100_000+i*53_000%400_000, shows(arrived))
			}
			return b
		}
		first, second := burst(0), burst(int64(3*time.Second))
		got := rate(first, second)
		if math.Abs(got.PPM-ppm) > got.Within {
			t.Errorf("%.0f ppm measured as %.0f within %.0f", ppm, got.PPM, got.Within)
		}
		if got.Within > 300 {
			t.Errorf("within %.0f ppm is no measure", got.Within)
		}
	}
}

// TestMeasureClock compares this machine's clock with itself, through the kernel.
func TestMeasureClock(t *testing.T) {
	for _, lo := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		t.Run(lo.String(), func(t *testing.T) {
			nstest.Enter(t)
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(lo, 0)))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got, err := MeasureClock(t.Context(), lo, l.Addr().(*net.TCPAddr).AddrPort(), 500*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f ppm within %.0f", got.PPM, got.Within)
			if math.Abs(got.PPM) > got.Within+500 { // a time daemon may adjust the clock by 500 ppm, the boot clock included
				t.Errorf("this machine's clock beside itself: %.0f ppm within %.0f", got.PPM, got.Within)
			}
			l.SetDeadline(time.Now().Add(10 * time.Millisecond))
			if conn, err := l.Accept(); err == nil {
				t.Errorf("whoever listens there had a connection from %v", conn.RemoteAddr())
			}
		})
	}
}

// TestMeasureClockByTCP measures another machine's clock by TCP, and meets each reason
// for an error.
func TestMeasureClockByTCP(t *testing.T) {
	here := nstest.Enter(t)
	there := here.Beside()
	here.Wire("here", there, "there")
	addNow(t, here, "here", "2001:db8::1/64")
	addNow(t, there, "there", "2001:db8::2/64")
	self, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	var l net.Listener
	there.Do(func() {
		var err error
		if l, err = net.Listen("tcp", "[2001:db8::2]:7946"); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	reaches(t, l.Addr().String())
	for _, c := range []struct {
		name, want string
		before     func()
		of         netip.AddrPort
	}{
		{"told", "", nil, netip.AddrPortFrom(other, 7946)},
		{"nobody listens", "nothing listens on its TCP port 7947", nil, netip.AddrPortFrom(other, 7947)},
		{"nobody is there", "no answer on TCP port 7946", nil, netip.MustParseAddrPort("[2001:db8::9]:7946")},
		{"in microseconds", errOddTCPStamp.Error(), func() { inMicroseconds(t, there) }, netip.AddrPortFrom(other, 7946)},
		{"turned off", errNoTCPStamp.Error(), func() { there.Sysctl("net/ipv4/tcp_timestamps", "0") }, netip.AddrPortFrom(other, 7946)},
	} {
		if c.before != nil {
			c.before()
		}
		got, err := MeasureClock(t.Context(), self, c.of, 100*time.Millisecond)
		if said := fmt.Sprint(err); c.want != "" && said != c.want || c.want == "" && (err != nil || math.Abs(got.PPM) > got.Within+500) {
			t.Errorf("%s: %.0f ppm within %.0f, %v; want %q", c.name, got.PPM, got.Within, err, c.want)
		}
	}
}

// reaches waits until a new network passes packets: the neighbours are not known at once.
func reaches(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// addNow adds an IPv6 address that can be bound at once.
func addNow(t *testing.T, n *nstest.Namespace, link, cidr string) {
	t.Helper()
	address, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	address.Flags = unix.IFA_F_NODAD
	if err := n.Netlink.AddrAdd(n.Link(link), address); err != nil {
		t.Fatal(err)
	}
}

// inMicroseconds makes a machine send its TCP timestamps in microseconds (Linux 6.7).
func inMicroseconds(t *testing.T, n *nstest.Namespace) {
	t.Helper()
	const featureTCPUsecTS = 1 << 4 // RTAX_FEATURE_TCP_USEC_TS
	_, to, _ := net.ParseCIDR("2001:db8::1/128")
	err := n.Netlink.RouteAdd(&netlink.Route{LinkIndex: n.Link("there").Attrs().Index, Dst: to, Features: featureTCPUsecTS})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStampOfASegment: the options of real segments and of malformed ones, and stamps
// that wrap.
func TestStampOfASegment(t *testing.T) {
	s := tcpStamps{from: 4711, of: netip.MustParseAddrPort("[2001:db8::1]:7946"), seq: 1 << 31}
	own := s.syn()
	if stamp, has := stampOf(own); !has || stamp != 1<<31 || len(own)%4 != 0 || int(own[12]>>4)*4 != len(own) {
		t.Errorf("a question of our own: %d, %v in %x", stamp, has, own)
	}
	if _, ours := s.read(own); ours {
		t.Error("a question is no answer")
	}
	for _, options := range []string{"", "\x08", "\x08\x0a1", "\x08\x00", "\x08\x01\x02", "\x02\x04", "\x00\x08\x0a12345678", "\x01\x01\x01", "\x08\x02"} {
		b := append(make([]byte, tcpHeader), options...)
		for b[12] = range byte(255) { // whatever length the header claims
			if stamp, has := stampOf(b); has {
				t.Errorf("%q, header length %d: stamp %d", options, b[12]>>4*4, stamp)
			}
		}
	}
	if a, b := s.unwrap(math.MaxUint32-1), s.unwrap(3); a != 0 || b != 5 {
		t.Errorf("over the end of 32 bits %d and %d, want 0 and 5", a, b)
	}
}
