package agent

import (
	"strings"
	"testing"
)

// TestNamesOfWhatLeft: the release actions of a VIP that has left still find its name. By
// then another VIP may have that name.
func TestNamesOfWhatLeft(t *testing.T) {
	first := newNames(parse(t, home), nil)
	second := newNames(parse(t, strings.Replace(home, "192.0.2.101", "192.0.2.105", 1)), first)
	if l := second.byID[vip1]; l == nil || !l.left || l.name != "vip1" {
		t.Errorf("what left is %+v", l)
	}
	if l := second.byName["vip1"]; l == nil || l.left || l.id != "192.0.2.105" {
		t.Errorf("vip1 is %+v", l)
	}
	if len(second.leases) != 2 {
		t.Errorf("%d VIPs and roles, want the two configured", len(second.leases))
	}
	if first.byID[vip1].left {
		t.Error("the names before were changed")
	}
	if l := newNames(parse(t, home), second).byID[vip1]; l.left {
		t.Error("what came back counts as gone")
	}
}
