package phones

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestUnitCapabilities: with exactly the unit's capabilities, a round and a keepalive
// work. If one is missing, the error names it.
func TestUnitCapabilities(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	for _, c := range []struct{ capabilities, want string }{
		{",+net_admin,+net_raw,+bpf", "numbers <nil>, waker <nil>"},
		{",+net_raw", "numbers sequence numbers: load program: operation not permitted (needs CAP_NET_ADMIN and CAP_BPF), waker <nil>"},
		{",+net_admin,+bpf", "numbers <nil>, waker open a raw TCP socket: operation not permitted (needs CAP_NET_RAW)"},
	} {
		cmd := exec.Command("setpriv", "--bounding-set", "-all"+c.capabilities, "--inh-caps", "-all", "--no-new-privs", exe, "-test.run", "^TestAsAgent$", "-test.v")
		cmd.Env = append(os.Environ(), "PHONES_AGENT=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want+"\n") {
			t.Errorf("with %q: %v\n%s\nwant %s", c.capabilities, err, out, c.want)
		}
	}
}

// TestAsAgent is what TestUnitCapabilities runs with few capabilities; run by itself it
// has all.
func TestAsAgent(t *testing.T) {
	vip := netip.MustParseAddr("127.3.1.5")
	call(t, "tcp4", "127.3.1.5:0", vip)
	all, err := List([]netip.Addr{vip})
	must(t, err)
	if len(all[vip]) != 1 {
		t.Fatalf("connections %v", all)
	}
	numbers, err := OpenNumbers()
	if err == nil {
		defer numbers.Close()
		must(t, numbers.Fill(vip, all[vip]))
		if all[vip][0].Seq == 0 {
			t.Error("no numbers")
		}
	}
	w, noWaker := OpenWaker(vip)
	if noWaker == nil {
		defer w.Close()
		must(t, w.Wake(all[vip][0]))
	}
	said := fmt.Sprintf("numbers %v, waker %v", err, noWaker)
	if os.Getenv("PHONES_AGENT") != "" {
		fmt.Println(said)
	} else if err != nil || noWaker != nil {
		t.Error(said)
	}
}
