package main

import (
	"net/netip"
	"testing"

	"sipalive/vip"
)

// TestInPlace: an address that is bound where it belongs is in place although there is a
// stray copy, in whichever order the kernel lists the two.
func TestInPlace(t *testing.T) {
	at := func(ifname string, right bool) vip.Bound {
		return vip.Bound{Address: vip.Address{IP: netip.MustParseAddr("192.0.2.101"), Interface: ifname}, AsBoundByBind: right}
	}
	for _, tt := range []struct {
		bound []vip.Bound
		want  bool
	}{
		{[]vip.Bound{at("eth0", true)}, true},
		{[]vip.Bound{at("lo", false), at("eth0", true)}, true},
		{[]vip.Bound{at("eth0", true), at("eth1", false)}, true},
		{[]vip.Bound{at("lo", false)}, false},
		{nil, false},
	} {
		if got := inPlace(tt.bound)["192.0.2.101"]; got != tt.want {
			t.Errorf("%+v: %t", tt.bound, got)
		}
	}
}
