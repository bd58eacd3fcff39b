package phones

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSegments(t *testing.T) {
	for _, vip := range []netip.Addr{vip1, netip.MustParseAddr("2001:db8::101")} {
		c := Connection{Phone: netip.AddrPortFrom(vip.Next(), 40000), Port: 5061, Seq: 0x01020304, Ack: 0x05060708}
		for _, s := range []struct {
			name    string
			segment [segmentLen]byte
			number  byte // the last of the sequence number
			flags   byte
		}{
			{"keepalive", keepalive(vip, c), 3, 0x10},
			{"reset", reset(vip, c), 4, 0x14},
		} {
			b := s.segment
			want := []byte{5061 >> 8, 5061 & 0xff, 40000 >> 8, 40000 & 0xff, 1, 2, 3, s.number, 5, 6, 7, 8, 0x50, s.flags, 4, 0, b[16], b[17], 0, 0}
			if !slices.Equal(b[:], want) {
				t.Errorf("%s: %x, want %x", s.name, b, want)
			}
			if sum := checksum(vip, c.Phone.Addr(), b[:]); sum != 0 {
				t.Errorf("%s of %s: the sum over the segment and its own checksum is %#x, not 0", s.name, vip, sum)
			}
		}
	}
}

// vanish closes the PBX's end of a connection without a packet, as if its host had died
// (a socket in TCP_REPAIR is closed that way).
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)) }))
	must(t, c.Close())
}

// TestWake: a keepalive wakes a phone whose PBX is gone, even if more was said after the
// numbers were read, or if the numbers are not known. A reset does so only with the right
// numbers. If nothing is sent, the phone does not notice.
func TestWake(t *testing.T) {
	n := openNumbers(t)
	for _, c := range []struct {
		name   string
		change func(*Connection)
		more   bool // more was said after the numbers were read
		send   func(*Waker, Connection) error
		woken  bool
	}{
		{"keepalive", func(*Connection) {}, false, (*Waker).Wake, true},
		{"keepalive with old numbers", func(*Connection) {}, true, (*Waker).Wake, true},
		{"keepalive without numbers", func(c *Connection) { c.Seq, c.Ack = 0, 0 }, false, (*Waker).Wake, true},
		{"reset", func(*Connection) {}, false, (*Waker).Reset, true},
		{"reset with old numbers", func(*Connection) {}, true, (*Waker).Reset, false},
		{"reset without numbers", func(c *Connection) { c.Seq, c.Ack = 0, 0 }, false, (*Waker).Reset, false},
		{"nothing", func(*Connection) {}, false, func(*Waker, Connection) error { return nil }, false},
	} {
		for _, address := range []string{"127.3.1.6", "::1"} {
			vip := netip.MustParseAddr(address)
			phone, pbx := call(t, "tcp", netip.AddrPortFrom(vip, 0).String(), vip)
			say(t, pbx, phone, "OPTIONS")
			say(t, phone, pbx, "200 OK")
			all, err := List([]netip.Addr{vip})
			must(t, err)
			must(t, n.Fill(vip, all[vip]))
			at := indexOf(all[vip], phone.LocalAddr().(*net.TCPAddr).AddrPort(), pbx.LocalAddr().(*net.TCPAddr).AddrPort().Port())
			connection := all[vip][at]
			c.change(&connection)
			if c.more {
				say(t, pbx, phone, "OPTIONS again")
				say(t, phone, pbx, "200 OK again")
			}
			vanish(t, pbx)
			w, err := OpenWaker(vip)
			must(t, err)
			must(t, c.send(w, connection))
			w.Close()
			wait := 10 * time.Second
			if !c.woken {
				wait = 50 * time.Millisecond
			}
			must(t, phone.SetReadDeadline(time.Now().Add(wait)))
			_, err = phone.Read(make([]byte, 1))
			if woken := errors.Is(err, syscall.ECONNRESET); woken != c.woken {
				t.Errorf("%s, %s: %v, woken %v", c.name, address, err, c.woken)
			}
		}
	}
}

// If the socket received everything for the VIP, it would fill up and cost time.
func TestWakerIsDeaf(t *testing.T) {
	vip := netip.MustParseAddr("127.3.1.7")
	w, err := OpenWaker(vip)
	must(t, err)
	defer w.Close()
	for err := error(nil); err == nil; { // what came before the filter
		_, _, err = unix.Recvfrom(w.fd, make([]byte, 100), 0)
	}
	phone, pbx := call(t, "tcp4", "127.3.1.7:0", vip)
	say(t, phone, pbx, "REGISTER")
	if _, _, err := unix.Recvfrom(w.fd, make([]byte, 100), 0); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("it hears: %v", err)
	}
	if _, err := OpenWaker(netip.MustParseAddr("192.0.2.199")); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address that is not on this host: %v", err)
	}
}
