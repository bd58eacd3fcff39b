package arp

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// In no second do more frames leave by an interface than a switch bears.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		for i := range mostFrames - urgentFrames {
			if wait, ok := l.take("eth0", urgentFrames); !ok {
				t.Fatalf("frame %d waits %v", i, wait)
			}
			time.Sleep(time.Millisecond)
		}
		if wait, ok := l.take("eth0", urgentFrames); ok || wait <= 0 || wait > limitWindow {
			t.Errorf("what can wait went out, or waits %v", wait)
		}
		for range urgentFrames {
			if _, ok := l.take("eth0", 0); !ok {
				t.Error("what is urgent waits")
			}
		}
		wait, ok := l.take("eth0", 0)
		if ok {
			t.Fatal("one too many went out")
		}
		if _, ok := l.take("eth1", 0); !ok {
			t.Error("another interface waits")
		}
		time.Sleep(wait)
		if _, ok := l.take("eth0", 0); !ok {
			t.Errorf("after %v it still waits", wait)
		}
	})
}

// A node that takes twenty VIPs at once announces every one, in both forms, and
// no second has more frames than may be.
func TestManyAtOnce(t *testing.T) {
	_, far, a := wire(t, Options{})
	a.burst = nil
	conn := sniff(t, far)
	const many = 20
	for i := range many {
		vip := netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)})
		if err := a.Announce(vip, "eth0"); err != nil {
			t.Fatal(err)
		}
		a.Start(vip, "eth0")
		defer a.Stop(vip)
	}
	var at []time.Time
	forms := map[[2]byte]bool{}
	for len(forms) < 2*many {
		f := next(t, conn, 10*time.Second)
		if f == nil {
			t.Fatalf("%d announcements of %d", len(forms), 2*many)
		}
		at = append(at, time.Now())
		forms[[2]byte{f[31], f[21]}] = true
	}
	for i := range at {
		// As they are heard, they may be a little closer together than they left.
		n := len(at[i:]) - len(slices.DeleteFunc(slices.Clone(at[i:]), func(u time.Time) bool { return u.Sub(at[i]) < 900*time.Millisecond }))
		if n > mostFrames {
			t.Fatalf("%d frames within 0.9 s of %v", n, at[i].Sub(at[0]))
		}
	}
}

// Again begins the burst anew; for what is not announced it does nothing.
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

// What is held back comes as soon as it may, with a whole burst behind it.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := recorded(Options{Refresh: 30 * time.Second})
		free := time.Now().Add(700 * time.Millisecond)
		r.fail = func() error {
			if wait := time.Until(free); wait > 0 {
				return &heldBack{wait}
			}
			return nil
		}
		if err := a.Announce(vip1, "eth0"); err != nil {
			t.Fatal(err)
		}
		a.Start(vip1, "eth0")
		time.Sleep(2 * time.Second)
		a.Stop(vip1)
		expect(t, r.at[vip1], 700, 800, 1800)
		if a.Stats().Errors != 0 {
			t.Errorf("stats %+v", a.Stats())
		}
	})
}

// An agent that was stopped over the end of a lease announces nothing.
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
