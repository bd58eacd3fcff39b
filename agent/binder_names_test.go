package agent

import (
	"net/netip"
	"path/filepath"
	"testing"

	"sipalive/vip/fence"
)

// TestRefusedReloadFencesNothing: after a configuration was refused, the fence does not
// know its VIPs, as before.
func TestRefusedReloadFencesNothing(t *testing.T) {
	r, b := newBinding(t)
	was := netip.MustParseAddr(string(vip1))
	f, err := fence.Open(fence.Options{Mode: fence.BPF, VIPs: map[netip.Addr]int64{was: 0}, Record: filepath.Join(t.TempDir(), "fence")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close(true) })
	r.a.Fence = f
	more := netip.MustParseAddr("192.0.2.102")
	undo, err := b.fenceMore(newNames(parse(t, home+"[[vip]]\nname = \"vip2\"\naddress = \"192.0.2.102\"\n"), r.a.names()))
	if err != nil || f.Set(more, 0) != nil {
		t.Fatalf("%v; the fence does not know what is new", err)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if f.Set(more, 0) == nil || b.fenced[more] {
		t.Error("what was refused is still fenced")
	}
	if err := f.Set(was, 0); err != nil || !b.fenced[was] {
		t.Errorf("what was there before is not fenced any more: %v", err)
	}
}
