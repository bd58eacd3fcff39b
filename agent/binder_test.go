package agent

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sipalive/arp"
	"sipalive/elect"
	"sipalive/hooks"
	"sipalive/platform"
	"sipalive/platform/nstest"
	"sipalive/vip"
	"sipalive/vip/fence"
)

// newBinding returns a binder whose kernel refuses: the machine has no eth0, and the
// table knows no VIP until the test adds it.
func newBinding(t *testing.T) (*recording, *binder) {
	t.Helper()
	nstest.Enter(t)
	return bindingHere(t)
}

// bindingHere does the same in the namespace that the test is in.
func bindingHere(t *testing.T) (*recording, *binder) {
	t.Helper()
	r := newRecording(t)
	a := r.a
	a.Directory = openDirectory(t, t.TempDir())
	_, leasesErr := a.Directory.OpenLeases([]elect.VIPID{vip1, elect.RoleID("cdr")})
	var tableErr, arpErr error
	a.Table, tableErr = vip.Open(nil)
	a.Announcer, arpErr = arp.New(arp.Options{Refresh: time.Hour})
	if err := errors.Join(leasesErr, tableErr, arpErr); err != nil {
		t.Fatal(err)
	}
	var err error
	if a.watch, err = arp.OpenWatch(arp.WatchOptions{Announcer: a.Announcer, Refresh: time.Hour, Now: func() time.Duration { return time.Duration(r.now) }}); err != nil {
		t.Fatal(err)
	}
	a.Ends = NewLeaseEnds(func() elect.Instant { return r.now })
	a.Fence = new(fence.Fence)
	a.Runner = hooks.NewRunner(hooks.Options{Now: func() int64 { return int64(r.now) }})
	a.actions, a.vipTargets, a.phones, a.timelines = newActions(a), newVIPTargets(a), newPhoneBook(a), newTimelines(a)
	a.events = make(chan elect.Event, 4)
	t.Cleanup(func() {
		_ = a.Runner.Close(context.Background())
		a.watch.Close()
		_ = a.Announcer.Close()
		a.Table.Close()
	})
	return r, newBinder(a)
}

// TestBoundByHalf: if a failed bind cannot be undone, the machine is told that the
// address is there, and later that it is gone, once the kernel has removed it.
func TestBoundByHalf(t *testing.T) {
	r, b := newBinding(t)
	b.want([]elect.Desired{{VIP: vip1, Hold: true, Epoch: 7, Until: r.at(time.Second)}, {VIP: elect.RoleID("cdr")}}, true)
	b.apply(false)
	got, _ := (<-r.a.events).(elect.Bound)
	if !got.On || !strings.Contains(got.Err, "eth0") || !strings.Contains(got.Err, "unbind 192.0.2.101") {
		t.Fatalf("told %+v, want both errors and that it is on", got)
	}
	off := []elect.Desired{{VIP: vip1}, {VIP: elect.RoleID("cdr")}}
	b.want(off, true)
	b.apply(false)
	if got := <-r.a.events; !got.(elect.Bound).On {
		t.Fatalf("told %+v while the kernel keeps it", got)
	}
	if err := r.a.Table.Manage([]vip.Address{b.applied[vip1].address}); err != nil {
		t.Fatal(err)
	}
	r.now = r.at(unbindRetry)
	b.apply(false)
	if got := <-r.a.events; got != (elect.Bound{VIP: vip1}) {
		t.Errorf("told %+v, want that it is off", got)
	}
}

// TestBoundTooLate: if binding took longer than the lease lasts, nobody is told of it.
func TestBoundTooLate(t *testing.T) {
	for _, late := range []bool{true, false} {
		r, b := newBinding(t)
		cdr := elect.RoleID("cdr")
		b.want([]elect.Desired{{VIP: vip1}, {VIP: cdr, Hold: true, Epoch: 7, Until: r.at(time.Second)}}, true)
		var asked atomic.Int32
		r.a.Now = func() elect.Instant { // the round begins in time, and then the machine stalls
			if asked.Add(1) > 1 && late {
				return r.at(time.Second)
			}
			return r.now
		}
		b.apply(false)
		if on := b.applied[cdr].on; on == late || len(r.a.events) > 0 == late {
			t.Errorf("late %t: on %t, %d events", late, on, len(r.a.events))
		}
	}
}

// TestEndOfWhatWasNeverBound: the machine holds a lease whose record could not be stored,
// so the kernel never heard of it. Its end must be told all the same, because the machine
// waits for that and does not run for the VIP meanwhile.
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
	for range 2 { // told only once
		b.want([]elect.Desired{{VIP: vip1}, {VIP: cdr}}, true)
		b.apply(false)
	}
	if len(a.events) != 1 || <-a.events != (elect.Bound{VIP: cdr}) {
		t.Errorf("told %d things more, want that %s is off, once", len(a.events), cdr)
	}
}

// TestOldEndOfWhatIsNotStored: what is held stays held while no record can be stored. It
// ends at the last stored end, for the kernel and for the next agent.
func TestOldEndOfWhatIsNotStored(t *testing.T) {
	r, b := newBinding(t)
	want := func(until elect.Instant, stored bool) {
		b.want([]elect.Desired{{VIP: vip1, Hold: true, Epoch: 7, Until: until}, {VIP: elect.RoleID("cdr")}}, stored)
	}
	ends := func() [3]elect.Instant {
		left := readLeases(filepath.Join(r.a.Directory.run, leaseName), bootNumber(r.a.Directory.boot))[vip1]
		return [3]elect.Instant{b.levelOf(vip1).Until, left.Until, r.a.Ends.ends[netip.MustParseAddr(string(vip1))]}
	}
	old, later := r.at(time.Second), r.at(3*time.Second)
	want(old, true)
	want(later, false)
	if got := ends(); got != [3]elect.Instant{old, old, old} {
		t.Errorf("not stored: the level, the lease file and the fence end at %v, want all %v", got, old)
	}
	want(later, true)
	if got := ends(); got != [3]elect.Instant{later, later, later} {
		t.Errorf("stored: the level, the lease file and the fence end at %v, want all %v", got, later)
	}
}

// TestRenewedAfterItsEnd: the binder takes down a VIP by itself because the loop is late.
// It takes the VIP up again when the lease goes on after all.
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

// TestLeaseLivesByTheClock: whether a lease lives depends on the clock, not on what the
// loop has processed or was told before.
func TestLeaseLivesByTheClock(t *testing.T) {
	r := newRecording(t)
	r.a.Directory = openDirectory(t, t.TempDir())
	cdr := elect.RoleID("cdr")
	if _, err := r.a.Directory.OpenLeases([]elect.VIPID{vip1, cdr}); err != nil {
		t.Fatal(err)
	}
	b := newBinder(r.a)
	want := func(stage string, expected bool) {
		t.Helper()
		if b.lives(cdr) != expected || b.lives(vip1) || b.lives("192.0.2.200") {
			t.Errorf("%s: %t, and of others %t, %t", stage, b.lives(cdr), b.lives(vip1), b.lives("192.0.2.200"))
		}
	}
	want("never held", false)
	held := []elect.Desired{{VIP: vip1}, {VIP: cdr, Hold: true, Epoch: 7, Until: r.at(time.Second)}}
	b.want(held, true)
	want("held", true)
	r.now += elect.Instant(time.Second)
	want("over, and the loop stood still", false)
	held[1].Until = r.at(3 * time.Second)
	b.want(held, true)
	want("renewed", true)
	b.want([]elect.Desired{{VIP: vip1}, {VIP: cdr}}, true)
	want("let go", false)
}

// TestActionsAskForTheLease: an agent's Runner asks for the lease right before each
// action.
func TestActionsAskForTheLease(t *testing.T) {
	r := newRecording(t)
	parts := r.a.Parts
	parts.Directory = openDirectory(t, t.TempDir())
	cdr := elect.RoleID("cdr")
	if _, err := parts.Directory.OpenLeases([]elect.VIPID{vip1, cdr}); err != nil {
		t.Fatal(err)
	}
	parts.Runner = hooks.NewRunner(hooks.Options{Now: func() int64 { return int64(r.now) }})
	t.Cleanup(func() { _ = parts.Runner.Close(context.Background()) })
	a := New(parts)
	a.binder.want([]elect.Desired{{VIP: vip1}, {VIP: cdr, Hold: true, Epoch: 7, Until: r.at(time.Second)}}, true)
	for _, want := range []string{"", "skipped: the lease of epoch 7 is over"} {
		outcome := make(chan hooks.Outcome, 1)
		a.Runner.Start(string(cdr), hooks.Acquire, 7, hooks.Event{}, []hooks.Action{{On: hooks.Acquire, Exec: []string{"/bin/true"}, Timeout: time.Minute}},
			func(o hooks.Outcome) { outcome <- o }, func(hooks.End) {})
		if o := <-outcome; o.Err != want || o.OK == o.Skipped {
			t.Errorf("%+v, want %q", o, want)
		}
		r.now += elect.Instant(time.Second)
	}
}

// TestAdoptedStays: what an earlier agent left held is not taken down before the machine
// has said anything.
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

// TestHeedsTheWatch: what each change on the machine makes the binder look at. A report
// of missed changes counts as any change.
func TestHeedsTheWatch(t *testing.T) {
	r := newRecording(t)
	r.a.Directory = openDirectory(t, t.TempDir())
	if _, err := r.a.Directory.OpenLeases([]elect.VIPID{vip1}); err != nil {
		t.Fatal(err)
	}
	ours := netip.PrefixFrom(netip.MustParseAddr(string(vip1)), 32)
	for _, c := range []struct {
		name                     string
		change                   platform.AddressChange
		devices, repair, unheard bool
	}{
		{"changes missed", platform.AddressChange{Resync: true}, true, true, true},
		{"an interface", platform.AddressChange{Interface: "eth0", Link: &platform.LinkChange{Up: true}}, true, true, true},
		{"a VIP went", platform.AddressChange{Interface: "eth0", Address: ours}, false, true, true},
		{"a VIP came", platform.AddressChange{Interface: "eth0", Address: ours, Added: true}, false, true, false},
		{"another address went", platform.AddressChange{Interface: "eth0", Address: netip.MustParsePrefix("192.0.2.250/32")}, false, false, false},
	} {
		b := newBinder(r.a)
		changes := make(chan platform.AddressChange, 1)
		changes <- c.change
		close(changes)
		b.heed(changes)
		if devices, repair := len(b.devices) > 0, len(b.repair) > 0; devices != c.devices || repair != c.repair || b.unheard.Load() != c.unheard {
			t.Errorf("%s: looks at devices %t, addresses %t, announces anew %t; want %t, %t, %t",
				c.name, devices, repair, b.unheard.Load(), c.devices, c.repair, c.unheard)
		}
	}
}
