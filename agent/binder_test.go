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

// TestRenewedAfterItsEnd: what the binder has taken down by itself, because the
// loop was late, it takes up again when the lease goes on after all.
func TestRenewedAfterItsEnd(t *testing.T) {
	r := newRecording(t)
	r.a.Directory = openDirectory(t, t.TempDir())
	cdr := elect.RoleID("cdr")
	if _, err := r.a.Directory.OpenLeases([]elect.VIPID{vip1, cdr}); err != nil {
		t.Fatal(err)
	}
	b := newBinder(r.a)
	hold := func() (woken bool) {
		b.want([]elect.Desired{{VIP: vip1}, {VIP: cdr, Hold: true, Epoch: 7, Until: r.at(time.Second)}}, true)
		select {
		case <-b.wake:
			return true
		default:
			return false
		}
	}
	if !hold() {
		t.Fatal("a new lease wakes nobody")
	}
	r.now += elect.Instant(500 * time.Millisecond)
	if hold() {
		t.Error("a renewal in time wakes the binder")
	}
	r.now += elect.Instant(1500 * time.Millisecond)
	if !hold() {
		t.Error("a renewal after the end wakes nobody")
	}
}

// TestAdoptedStays: what an earlier agent left held is not taken down before the
// machine has said its first word.
func TestAdoptedStays(t *testing.T) {
	r := newRecording(t)
	r.a.Directory = openDirectory(t, t.TempDir())
	cdr := elect.RoleID("cdr")
	r.a.Adopted = []elect.HeldVIP{{VIP: cdr, Epoch: 7, Until: r.at(time.Second)}}
	b := newBinder(r.a)
	b.apply(false)
	if ap := b.applied[cdr]; !ap.on || ap.epoch != 7 {
		t.Errorf("%s: on %t under epoch %d, want held on under 7", cdr, ap.on, ap.epoch)
	}
}
