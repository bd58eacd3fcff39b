package platform

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// connect makes a TCP connection to a listener at address and returns both ends.
func connect(t *testing.T, network, listen, address string) (local, remote netip.AddrPort) {
	t.Helper()
	l, err := net.Listen(network, listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	local = netip.AddrPortFrom(netip.MustParseAddr(address), port)
	phone, err := net.Dial("tcp", local.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { phone.Close() })
	pbx, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pbx.Close() })
	return local, phone.LocalAddr().(*net.TCPAddr).AddrPort()
}

// TestEstablishedTCP: the connections of each kind of listener are reported with plain
// addresses. Connections at other addresses and the listeners themselves are not
// reported.
func TestEstablishedTCP(t *testing.T) {
	want := map[netip.AddrPort]netip.AddrPort{}
	for _, c := range []struct{ network, listen, address string }{
		{"tcp4", "127.3.0.1:0", "127.3.0.1"},
		{"tcp", "[::]:0", "127.3.0.2"}, // both families on one socket
		{"tcp4", "0.0.0.0:0", "127.3.0.2"},
		{"tcp6", "[::1]:0", "::1"},
	} {
		local, remote := connect(t, c.network, c.listen, c.address)
		want[local] = remote
	}
	other, _ := connect(t, "tcp4", "127.3.0.3:0", "127.3.0.3")

	got := map[netip.AddrPort]netip.AddrPort{}
	at := []netip.Addr{netip.MustParseAddr("127.3.0.9"), netip.MustParseAddr("127.3.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("127.3.0.2")}
	err := EstablishedTCP(at, func(local, remote netip.AddrPort) {
		if local.Addr() == at[2] && want[local] != remote {
			return // another program's, on the loopback
		}
		got[local] = remote
	})
	if err != nil {
		t.Fatal(err)
	}
	for local, remote := range want {
		if got[local] != remote {
			t.Errorf("connection of %v at %v: told of %v", remote, local, got[local])
		}
		delete(got, local)
	}
	if len(got) > 0 {
		t.Errorf("told of more: %v (of another address: %v)", got, other)
	}
}

func TestAsManyAddressesAsAConfigurationHas(t *testing.T) {
	var at []netip.Addr
	for i := range 256 {
		at = append(at, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	err := EstablishedTCP(at, func(local, _ netip.AddrPort) { t.Errorf("connection at %v", local) })
	if err != nil {
		t.Fatal(err)
	}
	if err := EstablishedTCP(make([]netip.Addr, 1<<16), nil); err == nil {
		t.Error("more addresses than a filter holds are taken")
	}
	if err := EstablishedTCP(nil, nil); err != nil {
		t.Error(err)
	}
}

func FuzzParseConnection(f *testing.F) {
	f.Add(diagMessage(unix.AF_INET, netip.MustParseAddrPort("192.0.2.101:5060"), netip.MustParseAddrPort("198.51.100.7:40000"), 6)[unix.NLMSG_HDRLEN:])
	f.Add([]byte{unix.AF_INET6})
	f.Fuzz(func(t *testing.T, b []byte) {
		local, remote, ok := parseConnection(b)
		if ok && (local.Port() != binary.BigEndian.Uint16(b[4:]) || !remote.Addr().IsValid()) {
			t.Errorf("%v %v out of %x", local, remote, b)
		}
	})
}
