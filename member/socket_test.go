package member

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOutletSendsByBothFamilies(t *testing.T) {
	for _, a := range []netip.Addr{addr(1), netip.IPv6Loopback()} {
		local := netip.AddrPortFrom(a, freePort(t))
		p, err := openPath(local)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		o := newOutlet(p.raw)
		if err := o.write([]byte("x"), sockaddr(local)); err != nil {
			t.Fatal(err)
		}
		p.udp.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 10)
		if n, from, err := p.udp.ReadFromUDPAddrPort(buf); err != nil || n != 1 || from != local {
			t.Errorf("%d bytes from %s, %v; want 1 from %s", n, from, err, local)
		}
		if err := o.write(make([]byte, 1<<17), sockaddr(local)); err != unix.EMSGSIZE {
			t.Errorf("the kernel's refusal is lost: %v", err)
		}
		p.close()
		if err := o.write([]byte("x"), sockaddr(local)); err == nil {
			t.Error("sent by a closed socket")
		}
	}
}
