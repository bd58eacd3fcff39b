package arp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// sentFrame is a frame that left.
type sentFrame struct {
	addr   netip.Addr
	second bool // a first announcement's second form
	what   string
	at     time.Duration
}

// frames records frames in place of the socket, behind the limit.
type frames struct {
	mu    sync.Mutex
	start time.Time
	sent  []sentFrame
	fail  error
}

func (f *frames) leave(addr netip.Addr, what string, second bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, sentFrame{addr, second, what, time.Since(f.start)})
}

// limited makes an announcer with the synctest bubble's clock, a limit and no socket.
func limited(limit int, o Options) (*Announcer, *frames) {
	f := &frames{start: time.Now()}
	a := &Announcer{burst: burst[:], limit: newLimiter(), allowed: o.May, onError: o.OnError, queues: map[string]*queue{}, left: make(chan struct{}, 1),
		schedules: map[netip.Addr]*schedule{}}
	a.send = func(addr netip.Addr, ifname string, first bool) error {
		if err := a.mayLeave(ifname, 2, first); err != nil {
			return err
		}
		what := "repeated"
		if first {
			what = "first"
		}
		f.leave(addr, what, false)
		f.leave(addr, what, first)
		return nil
	}
	a.sendOne = func(addr netip.Addr, _ string, second bool) error {
		if f.fail == nil {
			f.leave(addr, "first", second)
		}
		return f.fail
	}
	a.SetRefresh(30 * time.Second)
	a.SetLimit(limit)
	return a, f
}

// all returns a copy.
func (f *frames) all() []sentFrame {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sent)
}

func (f *frames) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = nil
}

func (f *frames) of(what string) []sentFrame {
	return slices.DeleteFunc(f.all(), func(s sentFrame) bool { return s.what != what })
}

// most returns how many frames left in the busiest second, wherever that begins.
func (f *frames) most() (n int) {
	all := f.all()
	for i, s := range all {
		end := i
		for end < len(all) && all[end].at < s.at+time.Second {
			end++
		}
		n = max(n, end-i)
	}
	return n
}

func numbered(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }

// TestManyUnderALimit takes 64 VIPs at once while 15 frames a second may leave. Meanwhile
// rivals are answered and gateways are asked. In no second do more frames leave, and
// every VIP is announced once before any is announced twice.
func TestManyUnderALimit(t *testing.T) {
	const many, limit = 64, 15
	synctest.Test(t, func(t *testing.T) {
		a, f := limited(limit, Options{})
		for i := range many {
			if err := a.Announce(numbered(i), "eth0"); err != nil {
				t.Fatal(err)
			}
			a.Start(numbered(i), "eth0")
			time.Sleep(time.Millisecond / 2) // binding takes time
		}
		if !a.Waits(numbered(many-1)) || a.Waits(numbered(0)) {
			t.Error("the last VIP has been announced already, or the first waits")
		}
		select {
		case <-a.Left():
		default:
			t.Error("nobody hears that announcements have left")
		}
		for n := 0; time.Since(f.start) < 2*time.Minute; n++ {
			if time.Since(f.start) < 30*time.Second {
				a.Repeat(numbered(n % many)) // a rival's claim
			}
			if _, ok := a.limit.take("eth0", 1, urgentFrames); ok {
				f.leave(netip.Addr{}, "asked", false)
			}
			if _, ok := a.limit.take("eth0", 1, 0); ok {
				f.leave(netip.Addr{}, "asked", false)
			}
			time.Sleep(37 * time.Millisecond)
			synctest.Wait()
		}
		for i := range many {
			a.Stop(numbered(i))
		}
		if n := f.most(); n > limit {
			t.Errorf("%d frames in a second", n)
		}
		firsts := f.of("first")
		if len(firsts) != 2*many {
			t.Fatalf("%d frames of first announcements, want %d", len(firsts), 2*many)
		}
		for i, s := range firsts {
			if s.addr != numbered(i%many) || s.second != (i >= many) {
				t.Fatalf("frame %d is of %s, its second form %t", i, s.addr, s.second)
			}
		}
		last, end := firsts[many-1].at, firsts[len(firsts)-1].at
		if last < time.Duration((many-1)/limit)*time.Second || last > 5*time.Second {
			t.Errorf("the last VIP was heard of after %v", last)
		}
		all := f.all()
		if other := all[slices.IndexFunc(all, func(s sentFrame) bool { return s.what != "first" })]; other.at < end {
			t.Errorf("%q left after %v, before all was said at %v", other.what, other.at, end)
		}
		if len(f.of("repeated")) < 2*many || len(f.of("asked")) == 0 {
			t.Errorf("%d repetitions, %d questions in two minutes", len(f.of("repeated")), len(f.of("asked")))
		}
		t.Logf("%d VIPs, %d frames a second: the last is heard of after %v, all of both forms after %v; %d frames in the busiest second", many, limit, last, end, f.most())
	})
}

// TestManyWithoutALimit: by default all announcements leave at once, in both forms. They
// also do once a reload has removed the limit.
func TestManyWithoutALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, f := limited(0, Options{})
		for i := range 64 {
			if err := a.Announce(numbered(i), "eth0"); err != nil || a.Waits(numbered(i)) {
				t.Fatalf("VIP %d waits, %v", i, err)
			}
		}
		if all := f.all(); len(all) != 128 || all[127].at != 0 {
			t.Fatalf("%d frames", len(all))
		}
		time.Sleep(10 * time.Second)
		a.SetLimit(5)
		f.clear()
		for i := range 64 {
			_ = a.Announce(numbered(i), "eth0")
		}
		if len(f.all()) != 5 {
			t.Errorf("%d frames leave at once under a limit of 5", len(f.all()))
		}
		a.SetLimit(0)
		synctest.Wait()
		if n := len(f.of("first")); n != 64 {
			t.Errorf("%d of 64 VIPs are announced when the limit ends", n)
		}
		time.Sleep(time.Second)
		if n := len(f.all()); n != 128 {
			t.Errorf("%d frames, want both forms of 64", n)
		}
	})
}

// TestRoomForTheNext: repetitions leave a third of any limit to a VIP taken meanwhile. A
// new limit counts what left under the old one.
func TestRoomForTheNext(t *testing.T) {
	for _, limit := range []int{MinLimit, 10, 15, 16, 100} {
		synctest.Test(t, func(t *testing.T) {
			a, f := limited(1000, Options{})
			a.SetLimit(limit)
			flood := func() {
				for range 200 {
					a.Start(vip2, "eth0")
					a.Repeat(vip2)
				}
				a.Stop(vip2)
			}
			flood()
			flooded := len(f.all())
			if least := min(limit, mostFrames) / 3; flooded < least || limit-flooded < limit/3 {
				t.Errorf("limit %d: %d repeated frames leave", limit, flooded)
			}
			a.SetLimit(limit + 1)
			a.SetLimit(limit)
			if flood(); len(f.all()) != flooded {
				t.Errorf("limit %d: forgotten what had left when it changed", limit)
			}
			if _ = a.Announce(vip1, "eth0"); a.Waits(vip1) {
				t.Errorf("limit %d: a VIP taken meanwhile waits", limit)
			}
			time.Sleep(3 * time.Second)
			if f.most() > limit || len(f.of("first")) != 2 {
				t.Errorf("limit %d: %+v", limit, f.all())
			}
		})
	}
}

// TestTakenMeanwhile: one more VIP, taken while the second forms of many still wait,
// waits for none of them.
func TestTakenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, f := limited(15, Options{})
		for i := range 64 {
			_ = a.Announce(numbered(i), "eth0")
		}
		for try := range 20 {
			time.Sleep(6*time.Second + time.Duration(try)*77*time.Millisecond)
			if _ = a.Announce(vip1, "eth0"); a.Waits(vip1) {
				t.Errorf("try %d: it waits", try)
			}
			a.Stop(vip1)
			for i := range 64 {
				_ = a.Announce(numbered(i), "eth0")
			}
		}
		if n := f.most(); n > 15 {
			t.Errorf("%d frames in a second", n)
		}
	})
}

// TestLetGoInTheQueue: a VIP that is let go, or whose lease ends, before its turn comes
// is never announced and delays no other. Another interface does not wait for this queue.
func TestLetGoInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended sync.Map
		a, f := limited(5, Options{May: func(addr netip.Addr) bool { _, over := ended.Load(addr); return !over }})
		for i := range 9 {
			_ = a.Announce(numbered(i), "eth0")
		}
		_ = a.Announce(vip1, "eth1")
		if len(f.all()) != 6 {
			t.Fatalf("%d frames left at once", len(f.all()))
		}
		if wait, ok := a.limit.take("eth1", 1, 0); ok || wait > queueQuiet {
			t.Errorf("what can wait goes before the second form, or waits %v", wait)
		}
		_ = a.Announce(numbered(8), "eth1") // a reload gave it another interface
		a.Stop(numbered(6))
		ended.Store(numbered(5), true)
		ended.Store(numbered(2), true)
		time.Sleep(10 * time.Second)
		count := map[netip.Addr]int{}
		for _, s := range f.all() {
			count[s.addr]++
		}
		for i, want := range []int{2, 2, 1, 2, 2, 0, 0, 2, 2} {
			if got := count[numbered(i)]; got != want {
				t.Errorf("VIP %d: %d frames, want %d", i, got, want)
			}
		}
		if _, ok := a.limit.take("eth0", 1, 0); !ok || a.Waits(numbered(6)) {
			t.Error("something waits still")
		}
	})
}

// TestQueueFails: a failed send is reported, and the schedule tries it again.
func TestQueueFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		a, f := limited(5, Options{OnError: func(err error) { told = append(told, err.Error()) }})
		f.fail = unix.ENETDOWN
		_ = a.Announce(vip1, "eth0")
		a.Start(vip1, "eth0")
		if want := []string{"announce 192.0.2.101 on eth0: network is down (ip link set it up)"}; !slices.Equal(told, want) || a.Stats().Errors != 1 {
			t.Errorf("told %q, %+v", told, a.Stats())
		}
		time.Sleep(time.Second)
		a.Stop(vip1)
		if a.Waits(vip1) || len(a.left) == 0 || len(f.of("repeated")) != 2 {
			t.Errorf("waits %t, %+v", a.Waits(vip1), f.all())
		}
	})
}

// TestLimitOnTheWire: whole frames leave in order, the last as late as the limit demands,
// and none leaves after Close. VIPs that a busy machine takes too far apart do not count
// as taken together: then it is done once more.
func TestLimitOnTheWire(t *testing.T) {
	t.Parallel()
	for range 5 {
		done := false
		t.Run("", func(t *testing.T) { done = limitOnTheWire(t) })
		if done || t.Failed() {
			return
		}
	}
	t.Fatal("the machine stands still too often to tell anything")
}

// limitOnTheWire returns false if taking the VIPs took too long.
func limitOnTheWire(t *testing.T) bool {
	t.Helper()
	near, far, a := wire(t, Options{Limit: 5})
	conn := sniff(t, far)
	began := time.Now()
	for i := range 6 {
		if err := a.Announce(numbered(101+i), "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > queueQuiet-10*time.Millisecond {
		t.Logf("taking the VIPs took %v: once more", took)
		return false
	}
	if a.Waits(numbered(105)) {
		t.Error("the fifth frame waits")
	}
	for i := range 12 {
		f := next(t, conn, 10*time.Second)
		if f == nil {
			t.Fatalf("%d frames", i)
		}
		isAnnouncement(t, f, byte(1+i/6), near.MAC("eth0"), numbered(101+i%6))
		if waited := time.Since(began); i == 5 && waited < time.Second {
			t.Errorf("the sixth frame left after %v", waited)
		}
	}
	for i := range 6 {
		_ = a.Announce(numbered(101+i), "eth0")
	}
	sent := a.Stats().Sent
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Announce(vip1, "eth0"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if now := a.Stats().Sent; now != sent {
		t.Errorf("%d frames after Close", now-sent)
	}
	if _, err := New(Options{Refresh: time.Second, Limit: MinLimit - 1}); err == nil ||
		err.Error() != fmt.Sprintf("announce with 4 frames a second: must be at least %d, or 0 for no limit", MinLimit) {
		t.Errorf("too low a limit: %v", err)
	}
	return true
}
