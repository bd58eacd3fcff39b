package phones

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sipalive/platform/nstest"
)

// masquerading does not rewrite packets that connection tracking calls invalid.
const masquerading = `table ip nat {
	chain out {
		type nat hook postrouting priority srcnat
		oifname "eth0" masquerade
	}
}
`

// stateful is a packet filter such as careful administrators write.
const stateful = `table inet filter {
	chain in {
		type filter hook input priority 0; policy drop
		ct state invalid drop
		ct state established,related accept
		ct state new tcp flags & (fin | syn | rst | ack) == syn accept
	}
}
`

// load loads rules into the calling thread's namespace.
func load(t *testing.T, rules string) {
	t.Helper()
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

// behindNAT makes a phone's network behind a router that masquerades, and a holder with a
// packet filter. The test is in the holder's namespace; dial connects from the phone.
func behindNAT(t *testing.T, vip netip.Addr) (dial func(port uint16) *net.TCPConn) {
	t.Helper()
	holder := nstest.Enter(t)
	router, phone := holder.Beside(), holder.Beside()
	holder.Wire("eth0", router, "eth0")
	router.Wire("eth1", phone, "eth0")
	holder.Add("eth0", "192.0.2.11/24")
	holder.Add("eth0", vip.String()+"/32")
	router.Add("eth0", "192.0.2.1/24")
	router.Add("eth1", "198.51.100.1/24")
	phone.Add("eth0", "198.51.100.7/24")
	phone.DefaultRoute("eth0", netip.MustParseAddr("198.51.100.1"))
	router.Sysctl("net/ipv4/ip_forward", "1")
	router.Do(func() { load(t, masquerading) })
	load(t, stateful)
	return func(port uint16) (c *net.TCPConn) {
		phone.Do(func() {
			conn, err := net.Dial("tcp4", netip.AddrPortFrom(vip, port).String())
			must(t, err)
			t.Cleanup(func() { conn.Close() })
			c = conn.(*net.TCPConn)
		})
		return c
	}
}

// TestNAT: a keepalive gets through a NAT with the connection's numbers, old ones too,
// but not with numbers ahead of the window. The answer gets through a filter on the
// holder, which knows nothing of the connection.
func TestNAT(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.101")
	dial := behindNAT(t, vip)
	n := openNumbers(t)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	must(t, err)
	defer l.Close()
	for _, c := range []struct {
		name   string
		change func(*Connection)
		said   int // bytes after the numbers were read
		send   func(*Waker, Connection) error
		woken  bool
	}{
		{"keepalive", func(*Connection) {}, 0, (*Waker).Wake, true},
		{"keepalive with old numbers", func(*Connection) {}, 20_000, (*Waker).Wake, true},
		{"keepalive ahead of the window", func(c *Connection) { c.Seq += 1 << 30 }, 0, (*Waker).Wake, false},
		{"reset", func(*Connection) {}, 0, (*Waker).Reset, true},
	} {
		phone := dial(l.Addr().(*net.TCPAddr).AddrPort().Port())
		accepted, err := l.Accept()
		must(t, err)
		pbx := accepted.(*net.TCPConn)
		say(t, pbx, phone, "OPTIONS")
		say(t, phone, pbx, "200 OK")
		all, err := List([]netip.Addr{vip})
		must(t, err)
		must(t, n.Fill(vip, all[vip]))
		at := indexOf(all[vip], pbx.RemoteAddr().(*net.TCPAddr).AddrPort(), pbx.LocalAddr().(*net.TCPAddr).AddrPort().Port())
		connection := all[vip][at]
		c.change(&connection)
		if c.said > 0 {
			say(t, pbx, phone, strings.Repeat("x", c.said))
			say(t, phone, pbx, strings.Repeat("y", c.said))
		}
		vanish(t, pbx)
		must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable))
		w, err := OpenWaker(vip)
		must(t, err)
		sent := time.Now()
		must(t, c.send(w, connection))
		w.Close()
		wait := 10 * time.Second
		if !c.woken {
			wait = 300 * time.Millisecond
		}
		must(t, phone.SetReadDeadline(time.Now().Add(wait)))
		_, err = phone.Read(make([]byte, 1))
		took := time.Since(sent)
		if woken := errors.Is(err, syscall.ECONNRESET); woken != c.woken {
			t.Errorf("%s: %v, woken %v", c.name, err, c.woken)
		}
		t.Logf("%s: %v after %v", c.name, err, took.Round(time.Microsecond))
	}
}
