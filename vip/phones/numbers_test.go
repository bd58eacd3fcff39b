package phones

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openNumbers(t testing.TB) *Numbers {
	t.Helper()
	n, err := OpenNumbers()
	must(t, err)
	t.Cleanup(n.Close)
	return n
}

// call connects a phone to a listener at address listen. Both ends belong to this
// process.
func call(t testing.TB, network, listen string, vip netip.Addr) (phone, pbx *net.TCPConn) {
	t.Helper()
	l, err := net.Listen(network, listen)
	must(t, err)
	defer l.Close()
	p, err := net.Dial("tcp", netip.AddrPortFrom(vip, l.Addr().(*net.TCPAddr).AddrPort().Port()).String())
	must(t, err)
	t.Cleanup(func() { p.Close() })
	a, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return p.(*net.TCPConn), a.(*net.TCPConn)
}

func say(t testing.TB, from, to *net.TCPConn, text string) {
	t.Helper()
	_, err := from.Write([]byte(text))
	must(t, err)
	must(t, to.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, len(text))
	for n := 0; n < len(b); {
		m, err := to.Read(b[n:])
		must(t, err)
		n += m
	}
}

// queueSeq asks the socket itself for the next number of one direction, by TCP_REPAIR,
// which checkpoint and restore use.
func queueSeq(t testing.TB, c *net.TCPConn, queue int) (seq uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1))
		must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue))
		v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		must(t, err)
		seq = uint32(v)
		must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, -1)) // off, without a probe
	}))
	return seq
}

// The kernel's numbers are those of the socket itself, whatever its kind, and advance
// with the data.
func TestNumbersAreTheSockets(t *testing.T) {
	n := openNumbers(t)
	const receiving, sending = 1, 2 // TCP_RECV_QUEUE, TCP_SEND_QUEUE
	for _, c := range []struct{ network, listen, vip string }{
		{"tcp4", "127.3.1.1:0", "127.3.1.1"},
		{"tcp", "[::]:0", "127.3.1.2"},
		{"tcp6", "[::1]:0", "::1"},
	} {
		vip := netip.MustParseAddr(c.vip)
		phone, pbx := call(t, c.network, c.listen, vip)
		local := pbx.LocalAddr().(*net.TCPAddr).AddrPort()
		for _, text := range []string{"REGISTER", "a longer one, of another phone"} {
			say(t, pbx, phone, text+text)
			say(t, phone, pbx, text) // acknowledges, too
			all, err := List([]netip.Addr{vip})
			must(t, err)
			must(t, n.Fill(vip, all[vip]))
			at := indexOf(all[vip], phone.LocalAddr().(*net.TCPAddr).AddrPort(), local.Port())
			if at < 0 {
				t.Fatalf("%s: the connection of %v is not among %v", c.vip, phone.LocalAddr(), all[vip])
			}
			got := all[vip][at]
			if seq, ack := queueSeq(t, pbx, sending), queueSeq(t, pbx, receiving); got.Seq != seq || got.Ack != ack {
				t.Errorf("%s: numbers %d, %d; the socket has %d, %d", c.vip, got.Seq, got.Ack, seq, ack)
			}
		}
	}
}

func indexOf(all []Connection, phone netip.AddrPort, port uint16) int {
	for i, c := range all {
		if c.Phone == phone && c.Port == port {
			return i
		}
	}
	return -1
}

// Of more connections than one run takes, each gets its own numbers. An entry that is no
// connection keeps its numbers, even for a port that only listens.
func TestNumbersOfMany(t *testing.T) {
	n, vip := openNumbers(t), netip.MustParseAddr("127.3.1.3")
	l, err := net.Listen("tcp4", "127.3.1.3:0")
	must(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	for range 2*perRun + 5 {
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		defer c.Close()
		a, err := l.Accept()
		must(t, err)
		defer a.Close()
	}
	all, err := List([]netip.Addr{vip})
	must(t, err)
	nobody := Connection{Phone: netip.MustParseAddrPort("192.0.2.9:9"), Port: port, Seq: 7, Ack: 8}
	connections := append(all[vip], nobody)
	if len(connections) != 2*perRun+6 {
		t.Fatalf("%d connections", len(connections))
	}
	must(t, n.Fill(vip, connections))
	seen := map[uint32]bool{}
	for _, c := range connections[:len(connections)-1] {
		if c.Seq == 0 || c.Ack == 0 || seen[c.Seq] {
			t.Errorf("connection %+v", c)
		}
		seen[c.Seq] = true
	}
	if got := connections[len(connections)-1]; got != nobody {
		t.Errorf("a port that only listens: %+v", got)
	}
}

// BenchmarkRound measures what a round costs the holder per connection.
func BenchmarkRound(b *testing.B) {
	n, vip := openNumbers(b), netip.MustParseAddr("127.3.1.4")
	l, err := net.Listen("tcp4", "127.3.1.4:0")
	must(b, err)
	defer l.Close()
	const connections = 200
	for range connections {
		c, err := net.Dial("tcp", l.Addr().String())
		must(b, err)
		defer c.Close()
		a, err := l.Accept()
		must(b, err)
		defer a.Close()
	}
	b.ReportAllocs()
	for b.Loop() {
		all, err := List([]netip.Addr{vip})
		must(b, err)
		must(b, n.Fill(vip, all[vip]))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/connection")
}
