package platform

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestListeners finds the sockets of this process, but not the connected one.
func TestListeners(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	program := strings.TrimSpace(string(comm))
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	six, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	connected, err := net.Dial("udp4", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	got, err := Listeners(program)
	if err != nil {
		t.Fatal(err)
	}
	for network, addr := range map[string]net.Addr{"udp": udp.LocalAddr(), "tcp": tcp.Addr()} {
		if !slices.Contains(got, Listener{program, network, netip.MustParseAddrPort(addr.String())}) {
			t.Errorf("%s %s is not in %v", network, addr, got)
		}
	}
	if !slices.Contains(got, Listener{program, "tcp", netip.MustParseAddrPort(six.Addr().String())}) {
		t.Errorf("%s is not in %v", six.Addr(), got)
	}
	if l := (Listener{program, "udp", netip.MustParseAddrPort(connected.LocalAddr().String())}); slices.Contains(got, l) {
		t.Errorf("%v waits for nobody", l)
	}
	if other, err := Listeners("no-such-program"); err != nil || len(other) > 0 {
		t.Errorf("of no program: %v, %v", other, err)
	}
}

func TestParseSockets(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F55 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F56 0100007F:1F55 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F 00000000:0000 0A 0 0 0 0 0 4713
   3: zz:1F55 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1
`
	got := map[string]Listener{}
	parseSockets(text, "tcp", got)
	if len(got) != 1 || got["4711"].Local != netip.MustParseAddrPort("127.0.0.1:8021") {
		t.Errorf("%v", got)
	}
}
