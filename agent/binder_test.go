package agent

import (
	"testing"
	"time"

	"sipalive/elect"
)

// TestEndOfWhatWasNeverBound: the machine holds a lease whose record could not
// be stored, so the kernel never heard of it. Its end must be told all the same:
// the machine waits for that word and stands for nothing meanwhile.
func TestEndOfWhatWasNeverBound(t *testing.T) {
	r := newRecording(t)
	a := r.a
	a.Directory = openDirectory(t, t.TempDir())
	a.events = make(chan elect.Event, 4)
	cdr := elect.RoleID("cdr")
	if _, err := a.Directory.OpenLeases([]elect.VIPID{vip1, cdr}); err != nil {
		t.Fatal(err)
	}
	b := newBinder(a)
	until := r.at(time.Second)
	b.want([]elect.Desired{{VIP: vip1}, {VIP: cdr, Hold: true, Epoch: 7, Until: until}}, false)
	b.apply(false)
	if n := len(a.events); n > 0 {
		t.Fatalf("told %v of what was kept from the kernel", <-a.events)
	}
	for range 2 { // once
		b.want([]elect.Desired{{VIP: vip1}, {VIP: cdr}}, true)
		b.apply(false)
	}
	if len(a.events) != 1 || <-a.events != (elect.Bound{VIP: cdr}) {
		t.Errorf("told %d things more, want that %s is off, once", len(a.events), cdr)
	}
}
