package fence

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestBoundBeforehand: a SIP profile is bound in advance to a VIP on a node that does not
// hold it (net.ipv4.ip_nonlocal_bind). Nothing that it sends is ever heard, while that
// node itself reaches the VIP where it is held. From an address that the machine does not
// have, the kernel sends only for a transparent socket (IP_TRANSPARENT), so a plain
// socket would prove nothing about the fence.
func TestBoundBeforehand(t *testing.T) {
	s := start(t, "")
	const spare, packets = 2, 50
	must(t, s.Node(spare).Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0)
	}))
	phone := netip.AddrPortFrom(s.Phone().Addr, 5099)
	heard, err := listenUDP(s.Phone(), phone, false)
	must(t, err)
	defer heard.Close()
	begun := lab.Now()
	for _, from := range []struct {
		node        int
		address     netip.Addr
		transparent bool
	}{
		{spare, s.VIPs[0], false},
		{spare, s.VIPs[0], true},
		{spare, s.Node(spare).Addr, true},
		{0, s.VIPs[0], true}, // the holder, whose packets are heard
	} {
		profile, err := listenUDP(s.Node(from.node), netip.AddrPortFrom(from.address, 5099), from.transparent)
		must(t, err)
		refused := error(nil) // refused by the kernel or the fence, as an error to the sender
		for range packets {
			if _, err := profile.WriteToUDPAddrPort([]byte(s.Node(from.node).Name), phone); err != nil {
				refused = err
			}
		}
		t.Logf("%s sends from %v, transparent %t: %v", s.Node(from.node).Name, from.address, from.transparent, refused)
		must(t, profile.Close())
	}
	got := map[string]int{}
	must(t, heard.SetReadDeadline(time.Now().Add(patience)))
	holder, own := fmt.Sprintf("pbx1 from %v", s.VIPs[0]), fmt.Sprintf("pbx3 from %v", s.Node(spare).Addr)
	for b := make([]byte, 64); got[holder] < packets || got[own] < packets; { // the spare sends from its own address last
		n, from, err := heard.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatalf("heard so far %v: %v", got, err)
		}
		got[fmt.Sprintf("%s from %v", b[:n], from.Addr().Unmap())]++
	}
	t.Logf("the phone heard %v", got)
	if len(got) != 2 {
		t.Errorf("the phone heard %v, want %s and %s alone", got, holder, own)
	}
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	out, err := s.Node(spare).Run(ctx, binary, "ping", "sip:"+s.VIPs[0].String())
	must(t, err)
	if !strings.HasSuffix(out, ", pbx1\n") {
		t.Errorf("pbx3 asked vip1: %s, want an answer of pbx1", out)
	}
	s.oneHolder(begun)
}

// listenUDP listens on a machine. If transparent, the socket may send from its address
// even if the machine does not have that address.
func listenUDP(h *lab.Host, at netip.AddrPort, transparent bool) (conn *net.UDPConn, err error) {
	err = h.Do(func() error {
		if conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil || !transparent {
			return err
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var refused error
		err = raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
		return errors.Join(err, refused)
	})
	return conn, err
}
