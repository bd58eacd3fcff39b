package lab

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestSettings: Settings shows every change of addresses, routes and rules, except those
// to be left out.
func TestSettings(t *testing.T) {
	h := newLab(t, Options{}).Node(0)
	vip := netip.MustParseAddr("10.77.0.101")
	settings := func() []string {
		t.Helper()
		lines, err := h.Settings(func(dev string, addr netip.Addr) bool { return strings.HasPrefix(dev, "aside0") || addr == vip })
		if err != nil {
			t.Fatal(err)
		}
		return lines
	}
	before := settings()
	for _, c := range []struct {
		do, undo string
		seen     string // in the one new line; "" if there must be none
	}{
		{"addr add 192.0.2.7/32 dev eth0", "addr del 192.0.2.7/32 dev eth0", "address 192.0.2.7/32"},
		{"addr add 2001:db8::7/128 dev eth0 nodad", "addr del 2001:db8::7/128 dev eth0", "address 2001:db8::7/128"},
		{"addr add 10.77.0.101/32 dev eth0", "addr del 10.77.0.101/32 dev eth0", ""},
		{"route add 198.51.100.0/24 dev eth0 table 77", "route del 198.51.100.0/24 table 77", "route 198.51.100.0/24 type 1 table 77"},
		{"-6 route add 2001:db8:1::/64 dev eth0", "-6 route del 2001:db8:1::/64 dev eth0", "route 2001:db8:1::/64"},
		{"rule add from 203.0.113.7 table 77", "rule del from 203.0.113.7 table 77", "from 203.0.113.7/32"},
		{"-6 rule add to 2001:db8::/32 table 78", "-6 rule del to 2001:db8::/32 table 78", "to 2001:db8::/32"},
		{"link add aside0 type veth peer name aside0x", "link del aside0", ""},
	} {
		ip(t, h, c.do)
		now := settings()
		var fresh []string
		for _, l := range now {
			if !slices.Contains(before, l) {
				fresh = append(fresh, l)
			}
		}
		if c.seen == "" && len(fresh) > 0 || c.seen != "" && !slices.ContainsFunc(fresh, func(l string) bool { return strings.Contains(l, c.seen) }) {
			t.Errorf("ip %s: new is %q", c.do, fresh)
		}
		ip(t, h, c.undo)
		if after := settings(); !slices.Equal(after, before) {
			t.Errorf("ip %s: %q, want %q", c.undo, after, before)
		}
	}
}

func ip(t *testing.T, h *Host, args string) {
	t.Helper()
	if err := h.Do(func() error { return exec.Command("ip", strings.Fields(args)...).Run() }); err != nil {
		t.Fatalf("ip %s: %v", args, err)
	}
}
