package phones

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestEndStale: of this host's connections on a VIP, those that another node listed end,
// whatever kind of socket they are. No other connection ends.
func TestEndStale(t *testing.T) {
	for _, c := range []struct{ network, listen, vip string }{
		{"tcp4", "127.3.1.8:0", "127.3.1.8"},
		{"tcp", "[::]:0", "127.3.1.9"},
		{"tcp6", "[::1]:0", "::1"},
	} {
		vip := netip.MustParseAddr(c.vip)
		phone, pbx := call(t, c.network, c.listen, vip)
		otherPhone, other := call(t, c.network, c.listen, vip)
		told := Connection{Phone: phone.LocalAddr().(*net.TCPAddr).AddrPort(), Port: pbx.LocalAddr().(*net.TCPAddr).AddrPort().Port()}
		gone := told
		gone.Port++ // ended by itself meanwhile
		must(t, EndStale(vip, []Connection{told, gone}))
		must(t, pbx.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := pbx.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: the PBX read %v", c.vip, err)
		}
		say(t, otherPhone, other, "REGISTER")
		must(t, EndStale(vip, nil))
		say(t, otherPhone, other, "REGISTER")
	}
}
