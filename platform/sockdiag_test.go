package platform

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const socketNoticeDeadline = 10 * time.Second // generous: two cores shared with others

func anySocket(SocketDestroyed) bool { return true }

// watchSockets starts a watch that sends its notices to the channel.
func watchSockets(t *testing.T, ports []uint16, match func(SocketDestroyed) bool) (*SocketWatch, chan SocketDestroyed) {
	t.Helper()
	got := make(chan SocketDestroyed, 65536)
	w, err := WatchSocketsDestroyed(t.Context(), bothProtocols, ports, match, func(s SocketDestroyed) { got <- s })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, got
}

func awaitSocket(t *testing.T, got chan SocketDestroyed, want func(SocketDestroyed) bool) SocketDestroyed {
	t.Helper()
	deadline := time.After(socketNoticeDeadline)
	for {
		select {
		case s := <-got:
			if want(s) {
				return s
			}
		case <-deadline:
			t.Fatal("no notice came")
		}
	}
}

func TestSocketDestroyedByKind(t *testing.T) {
	listen := func(network, address string) (func(), netip.AddrPort) {
		t.Helper()
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, address)
			if err != nil {
				t.Fatal(err)
			}
			return func() { c.Close() }, c.LocalAddr().(*net.UDPAddr).AddrPort()
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		return func() { l.Close() }, l.Addr().(*net.TCPAddr).AddrPort()
	}
	for _, c := range []struct {
		network, address string
		protocol         uint8
		served           string // an address this socket served
	}{
		{"udp4", "127.0.0.1:0", unix.IPPROTO_UDP, "127.0.0.1"},
		{"udp4", "0.0.0.0:0", unix.IPPROTO_UDP, "127.0.0.1"},
		{"udp6", "[::1]:0", unix.IPPROTO_UDP, "::1"},
		{"udp", "[::]:0", unix.IPPROTO_UDP, "127.0.0.1"}, // dual stack
		{"tcp4", "127.0.0.1:0", unix.IPPROTO_TCP, "127.0.0.1"},
		{"tcp", "[::]:0", unix.IPPROTO_TCP, "::1"},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			kill, local := listen(c.network, c.address)
			served := netip.AddrPortFrom(netip.MustParseAddr(c.served), local.Port())
			_, got := watchSockets(t, []uint16{local.Port()}, anySocket)
			kill()
			s := awaitSocket(t, got, func(s SocketDestroyed) bool { return s.Served(c.protocol, served) })
			if s.Served(c.protocol^unix.IPPROTO_UDP^unix.IPPROTO_TCP, served) {
				t.Fatalf("%+v served the other protocol, too", s)
			}
			if other := netip.AddrPortFrom(served.Addr(), served.Port()^1); s.Served(c.protocol, other) {
				t.Fatalf("%+v served %v", s, other)
			}
		})
	}
}

func TestServed(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, c := range []struct {
		name          string
		local, remote string
		asked         string
		want          bool
	}{
		{"the address itself", "192.0.2.11:5060", "0.0.0.0:0", "192.0.2.11:5060", true},
		{"another address", "192.0.2.12:5060", "0.0.0.0:0", "192.0.2.11:5060", false},
		{"wildcard", "0.0.0.0:5060", "0.0.0.0:0", "192.0.2.11:5060", true},
		{"IPv4 wildcard for IPv6", "0.0.0.0:5060", "0.0.0.0:0", "[2001:db8::1]:5060", false},
		{"dual stack wildcard", "[::]:5060", "[::]:0", "192.0.2.11:5060", true},
		{"connected: a prober's own", "192.0.2.11:5060", "192.0.2.11:40000", "192.0.2.11:5060", false},
		{"mapped question", "192.0.2.11:5060", "0.0.0.0:0", "[::ffff:192.0.2.11]:5060", true},
		{"link-local with zone", "[fe80::1]:5060", "[::]:0", "[fe80::1%eth0]:5060", true},
	} {
		s := SocketDestroyed{Protocol: unix.IPPROTO_UDP, Local: at(c.local), Remote: at(c.remote)}
		if got := s.Served(unix.IPPROTO_UDP, at(c.asked)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if !(SocketDestroyed{}).Served(unix.IPPROTO_UDP, at("192.0.2.11:5060")) {
		t.Error("lost notices may have been about any socket")
	}
}

// TestPortFilterPassesOnlyServers: with ports given, no notice comes of a prober's
// connected socket or of other ports. The socket closed last proves that the earlier
// notices were skipped.
func TestPortFilterPassesOnlyServers(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	_, got := watchSockets(t, []uint16{9, port, 19}, anySocket)
	for range 20 {
		c, err := net.Dial("udp4", server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		other, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		other.Close()
	}
	server.Close()
	s := awaitSocket(t, got, anySocket)
	if s.Local.Port() != port || s.Remote.Port() != 0 {
		t.Fatalf("first notice is %+v, want the server's on port %d", s, port)
	}
}

func TestMatchIsAsked(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	asked := make(chan SocketDestroyed, 1)
	_, got := watchSockets(t, []uint16{port}, func(s SocketDestroyed) bool {
		asked <- s
		return false
	})
	c.Close()
	awaitSocket(t, asked, anySocket)
	select {
	case s := <-got:
		t.Fatalf("told of %+v, which match refused", s)
	default:
	}
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w, err := WatchSocketsDestroyed(ctx, bothProtocols, nil, anySocket, func(SocketDestroyed) {})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-w.Done():
	case <-time.After(socketNoticeDeadline):
		t.Fatal("the watch outlives its context")
	}
	w.Close()
	w.Close()
	if w.Err() != nil {
		t.Fatalf("ended by its context, yet Err is %v", w.Err())
	}
}

// TestLostNoticesAreTold: an overflow of the watch's buffer is reported twice, at once
// and when the backlog has been read, and the watch goes on. notify blocks until the
// kernel has dropped notices.
func TestLostNoticesAreTold(t *testing.T) {
	blocked, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	told := make(chan struct{}, 1000)
	w, err := WatchSocketsDestroyed(t.Context(), bothProtocols, nil, anySocket, func(s SocketDestroyed) {
		if !first.Swap(true) {
			close(blocked)
			<-release
		}
		if s == (SocketDestroyed{}) {
			told <- struct{}{}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	end := sync.OnceFunc(func() { close(release) })
	t.Cleanup(end) // before Close, which waits for notify
	die := func() {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	die()
	<-blocked
	for deadline := time.Now().Add(socketNoticeDeadline); netlinkDrops(t, w.file) == 0; {
		for range 500 { // the default buffer holds some 300
			die()
		}
		if time.Now().After(deadline) {
			t.Fatal("the kernel drops nothing")
		}
	}
	end()
	for i := range 2 {
		select {
		case <-told:
		case <-time.After(socketNoticeDeadline):
			t.Fatalf("notices were lost, and that was told %d times, want 2", i)
		}
	}
}

// netlinkDrops returns how many notices the kernel dropped for lack of room:
// SK_MEMINFO_DROPS of SO_MEMINFO. /proc/net/netlink may leave a socket out while others
// come and go.
func netlinkDrops(t *testing.T, f *os.File) uint32 {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	}); err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	return info[8]
}

func TestTooManyPorts(t *testing.T) {
	_, err := WatchSocketsDestroyed(t.Context(), bothProtocols, make([]uint16, 201), anySocket, func(SocketDestroyed) {})
	if err == nil || !strings.Contains(err.Error(), "201 ports") {
		t.Fatalf("got %v", err)
	}
	w, _ := watchSockets(t, make([]uint16, 200), anySocket)
	w.Close()
}

// BenchmarkChurnBesideFilter measures the cost of 10,000 short TCP connections a second.
// None of them is on a watched port, so the kernel drops their notices before they reach
// us.
func BenchmarkChurnBesideFilter(b *testing.B)  { benchmarkChurn(b, []uint16{5060}) }
func BenchmarkChurnWithoutFilter(b *testing.B) { benchmarkChurn(b, nil) }

func benchmarkChurn(b *testing.B, ports []uint16) {
	var seen atomic.Int64
	w, err := WatchSocketsDestroyed(b.Context(), bothProtocols, ports, func(SocketDestroyed) bool {
		seen.Add(1)
		return false
	}, func(SocketDestroyed) {})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	before := cpuOfSelf(b)
	b.ResetTimer()
	for range b.N {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuOfSelf(b)-before)/float64(b.N), "cpu-ns/socket")
	b.ReportMetric(float64(seen.Load())/float64(b.N), "notices/socket")
}

func cpuOfSelf(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func diagMessage(family byte, local, remote netip.AddrPort, protocol byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+inetDiagMsgLen+8)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	m := b[unix.NLMSG_HDRLEN:]
	m[0] = family
	binary.BigEndian.PutUint16(m[4:], local.Port())
	binary.BigEndian.PutUint16(m[6:], remote.Port())
	copy(m[8:], local.Addr().AsSlice())
	copy(m[24:], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint16(m[inetDiagMsgLen:], 5)
	binary.NativeEndian.PutUint16(m[inetDiagMsgLen+2:], inetDiagProtocol)
	m[inetDiagMsgLen+4] = protocol
	return b
}

func FuzzSocketsDestroyed(f *testing.F) {
	four := diagMessage(unix.AF_INET, netip.MustParseAddrPort("192.0.2.11:5060"), netip.MustParseAddrPort("0.0.0.0:0"), unix.IPPROTO_UDP)
	six := diagMessage(unix.AF_INET6, netip.MustParseAddrPort("[::]:5060"), netip.MustParseAddrPort("[::]:0"), unix.IPPROTO_TCP)
	f.Add(four)
	f.Add(append(append([]byte{}, four...), six...))
	f.Add(four[:40])
	zeroLength := append([]byte{}, four...)
	clear(zeroLength[:4])
	f.Add(zeroLength)
	zeroAttr := append([]byte{}, four...)
	clear(zeroAttr[unix.NLMSG_HDRLEN+inetDiagMsgLen:])
	f.Add(zeroAttr)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		parseSocketsDestroyed(b, func(s SocketDestroyed) {
			n++
			s.Served(unix.IPPROTO_UDP, netip.MustParseAddrPort("192.0.2.11:5060"))
		})
		if n > len(b)/(unix.NLMSG_HDRLEN+inetDiagMsgLen) {
			t.Fatalf("%d notices out of %d bytes", n, len(b))
		}
	})
}

func TestParseSocketsDestroyed(t *testing.T) {
	at := netip.MustParseAddrPort
	b := diagMessage(unix.AF_INET, at("192.0.2.11:5060"), at("0.0.0.0:0"), unix.IPPROTO_UDP)
	b = append(b, diagMessage(unix.AF_INET6, at("[::ffff:192.0.2.11]:5061"), at("[2001:db8::1]:99"), unix.IPPROTO_TCP)...)
	var got []SocketDestroyed
	parseSocketsDestroyed(b, func(s SocketDestroyed) { got = append(got, s) })
	want := []SocketDestroyed{
		{unix.IPPROTO_UDP, at("192.0.2.11:5060"), at("0.0.0.0:0")},
		{unix.IPPROTO_TCP, at("192.0.2.11:5061"), at("[2001:db8::1]:99")},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// TestWatchLeavesNoDescriptor: no descriptor of the watch or its test socket stays open.
func TestWatchLeavesNoDescriptor(t *testing.T) {
	count := func() int {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
				n++
			}
		}
		return n
	}
	before := count()
	for range 5 {
		w, _ := watchSockets(t, []uint16{5060}, anySocket)
		w.Close()
	}
	if after := count(); after > before {
		t.Fatalf("%d sockets before, %d after", before, after)
	}
}

// TestBacklogMeetsThePortRule: notices from before the filter was attached follow the
// same rule.
func TestBacklogMeetsThePortRule(t *testing.T) {
	at := netip.MustParseAddrPort
	server := SocketDestroyed{unix.IPPROTO_UDP, at("0.0.0.0:5060"), at("0.0.0.0:0")}
	for _, c := range []struct {
		ports []uint16
		s     SocketDestroyed
		want  bool
	}{
		{[]uint16{5060}, server, true},
		{[]uint16{5061, 5062}, server, false},
		{nil, server, true},
		{[]uint16{5060}, SocketDestroyed{unix.IPPROTO_UDP, at("127.0.0.1:5060"), at("127.0.0.1:9")}, false},
	} {
		if got := (&SocketWatch{ports: c.ports}).wants(c.s); got != c.want {
			t.Errorf("ports %v, %+v: %v", c.ports, c.s, got)
		}
	}
}

var bothProtocols = []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP}
