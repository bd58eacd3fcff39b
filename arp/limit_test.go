package arp

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Frames that can wait leave only while a switch tolerates them; frames that cannot wait
// are counted.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		for i := range mostFrames - urgentFrames {
			if wait, ok := l.take("eth0", 1, urgentFrames); !ok {
				t.Fatalf("frame %d waits %v", i, wait)
			}
			time.Sleep(time.Millisecond)
		}
		if wait, ok := l.take("eth0", 1, urgentFrames); ok || wait <= 0 || wait > limitWindow {
			t.Errorf("what can wait longer went out, or waits %v", wait)
		}
		for range urgentFrames / 2 {
			if _, ok := l.take("eth0", 2, 0); !ok {
				t.Error("what can wait less waits")
			}
		}
		wait, ok := l.take("eth0", 2, 0)
		if ok {
			t.Fatal("one too many went out")
		}
		if _, ok := l.take("eth1", 2, 0); !ok {
			t.Error("another interface waits")
		}
		time.Sleep(wait)
		l.count("eth0", 1)
		if left, ok := l.take("eth0", 2, 0); ok || left > 2*time.Millisecond {
			t.Errorf("the frame that did not wait is not counted: waits %v", left)
		}
		if _, ok := l.take("eth0", 1, 0); !ok {
			t.Errorf("after %v it still waits", wait)
		}
		l.count("eth0", 3*mostFrames)
		if wait, ok := l.take("eth0", 1, 0); ok || wait != limitWindow {
			t.Errorf("after very many it went out, or waits %v", wait)
		}
	})
}

// A node that takes twenty VIPs at once, just when the limit is used up, announces every
// one at once in both forms. The repetitions keep to the limit.
func TestManyAtOnce(t *testing.T) {
	_, far, a := wire(t, Options{})
	conn := sniff(t, far)
	a.limit.count("eth0", 2*mostFrames)
	const many = 20
	for i := range many {
		vip := netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)})
		before := a.Stats().Sent
		if err := a.Announce(vip, "eth0"); err != nil {
			t.Fatal(err)
		}
		if sent := a.Stats().Sent - before; sent != 2 {
			t.Fatalf("%d frames of VIP %d had left when Announce was back", sent, i)
		}
		a.Repeat(vip) // not scheduled: does nothing
	}
	forms := map[[2]byte]bool{}
	for range 2 * many {
		f := next(t, conn, 10*time.Second)
		if f == nil {
			t.Fatalf("%d announcements of %d", len(forms), 2*many)
		}
		forms[[2]byte{f[31], f[21]}] = true
	}
	if len(forms) != 2*many {
		t.Fatalf("%d announcements of %d", len(forms), 2*many)
	}
	for i := range many {
		vip := netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)})
		a.Start(vip, "eth0")
		defer a.Stop(vip)
	}
	clear(forms)
	var at []time.Time
	for len(forms) < 2*many {
		f := next(t, conn, 10*time.Second)
		if f == nil {
			t.Fatalf("%d of %d are repeated", len(forms), 2*many)
		}
		at = append(at, time.Now())
		forms[[2]byte{f[31], f[21]}] = true
	}
	for i := range at {
		// They may arrive closer together than they left: the receiving end sometimes
		// stands still for up to a second.
		n := len(at[i:]) - len(slices.DeleteFunc(slices.Clone(at[i:]), func(u time.Time) bool { return u.Sub(at[i]) < 2*time.Second }))
		if n > 3*mostFrames {
			t.Fatalf("%d frames within 2 s of %v", n, at[i].Sub(at[0]))
		}
	}
}

// Again begins the burst again; for a VIP that is not announced it does nothing.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := recorded(Options{Refresh: 30 * time.Second})
		a.Again(vip2)
		a.Start(vip1, "eth0")
		time.Sleep(10 * time.Second)
		a.Again(vip1)
		time.Sleep(5 * time.Second)
		a.Stop(vip1)
		expect(t, r.at[vip1], 100, 1100, 2200, 4400, 10000, 10100, 11100, 12200, 14400)
		expect(t, r.at[vip2])
	})
}

// A repetition that is held back leaves as soon as the limit allows, followed by a whole
// burst.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := recorded(Options{Refresh: 30 * time.Second})
		busy := time.Now().Add(10 * time.Second)
		free := busy.Add(700 * time.Millisecond)
		r.fail = func() error {
			if wait := time.Until(free); wait > 0 && !time.Now().Before(busy) {
				return &heldBack{wait}
			}
			return nil
		}
		a.Start(vip1, "eth0")
		time.Sleep(time.Until(busy))
		a.Repeat(vip1)
		time.Sleep(2 * time.Second)
		a.Stop(vip1)
		a.Repeat(vip1)
		expect(t, r.at[vip1], 100, 1100, 2200, 4400, 10700, 10800, 11800)
		if a.Stats().Errors != 0 {
			t.Errorf("stats %+v", a.Stats())
		}
	})
}

// An agent that was stopped past the end of a lease announces nothing.
func TestMay(t *testing.T) {
	ended := false
	_, far, a := wire(t, Options{May: func(netip.Addr) bool { return !ended }})
	conn := sniff(t, far)
	ended = true
	if err := a.Announce(vip1, "eth0"); err != nil {
		t.Fatal(err)
	}
	if f := next(t, conn, 100*time.Millisecond); f != nil || a.Stats().Sent != 0 {
		t.Errorf("announced %x", f)
	}
}
