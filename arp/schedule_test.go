package arp

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// recorder takes the socket's place. It records when each announcement left, in ms.
type recorder struct {
	mu    sync.Mutex
	start time.Time
	at    map[netip.Addr][]int64
	on    []string
	fail  func() error
}

func (r *recorder) send(addr netip.Addr, ifname string, _ bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(); err != nil {
			return err
		}
	}
	r.at[addr] = append(r.at[addr], time.Since(r.start).Milliseconds())
	r.on = append(r.on, ifname)
	return nil
}

// recorded makes an announcer with the synctest bubble's clock and no socket.
func recorded(o Options) (*Announcer, *recorder) {
	r := &recorder{start: time.Now(), at: make(map[netip.Addr][]int64)}
	a := &Announcer{
		burst:     burst[:],
		onError:   o.OnError,
		send:      r.send,
		schedules: make(map[netip.Addr]*schedule),
	}
	a.SetRefresh(o.Refresh)
	return a, r
}

func expect(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("announced at %v ms, want %v", got, want)
	}
}

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := recorded(Options{Refresh: 30 * time.Second})
		a.Start(vip1, "eth0")
		time.Sleep(time.Second + time.Millisecond)
		a.Start(vip1, "eth0") // a level: no new burst
		a.Start(vip2, "eth0")
		time.Sleep(70 * time.Second)
		a.Stop(vip1)
		a.Stop(vip1)
		time.Sleep(time.Hour)
		a.Stop(vip2)
		expect(t, r.at[vip1], 100, 1100, 2200, 4400, 34400, 64400)
		expect(t, r.at[vip2][:6], 1101, 2101, 3201, 5401, 35401, 65401)
	})
}

// A reload may change the refresh; an announcement already due still leaves when it was
// due.
func TestScheduleWithAnotherRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := recorded(Options{Refresh: 30 * time.Second})
		a.Start(vip1, "eth0")
		time.Sleep(10 * time.Second)
		a.SetRefresh(5 * time.Second)
		time.Sleep(36 * time.Second)
		a.Stop(vip1)
		expect(t, r.at[vip1], 100, 1100, 2200, 4400, 34400, 39400, 44400)
	})
}

func TestScheduleMovesToAnotherInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := recorded(Options{Refresh: 30 * time.Second})
		a.Start(vip1, "eth0")
		time.Sleep(150 * time.Millisecond)
		a.Start(vip1, "eth1")
		time.Sleep(1200 * time.Millisecond)
		a.Stop(vip1)
		expect(t, r.at[vip1], 100, 250, 1250)
		if !slices.Equal(r.on, []string{"eth0", "eth1", "eth1"}) {
			t.Errorf("announced on %q", r.on)
		}
	})
}

// A failure is retried ever less often. The first success begins a new burst.
func TestScheduleAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failures []int64
		start := time.Now()
		a, r := recorded(Options{Refresh: 30 * time.Second, OnError: func(err error) {
			if text := "announce 192.0.2.101 on eth0: network is down (ip link set it up)"; err.Error() != text {
				t.Errorf("error %q", err)
			}
			failures = append(failures, time.Since(start).Milliseconds())
		}})
		r.fail = func() error {
			if now := time.Since(start); now > 2*time.Second && now < 20*time.Second {
				return unix.ENETDOWN
			}
			return nil
		}
		a.Start(vip1, "eth0")
		time.Sleep(60 * time.Second)
		a.Stop(vip1)
		synctest.Wait()
		expect(t, failures, 2200, 2300, 2500, 2900, 3700, 5300, 8500, 13500, 18500)
		expect(t, r.at[vip1], 100, 1100, 23500, 23600, 24600, 25700, 27900, 57900)
		if a.Stats().Errors != uint64(len(failures)) {
			t.Errorf("stats %+v", a.Stats())
		}
	})
}

// Stop waits for an announcement under way, and none follows. The test uses real time: a
// goroutine that waits for a mutex stops a bubble's clock.
func TestStopWaits(t *testing.T) {
	a, _ := recorded(Options{Refresh: time.Millisecond})
	sending, goOn := make(chan struct{}, 100), make(chan struct{})
	a.send = func(netip.Addr, string, bool) error {
		sending <- struct{}{}
		<-goOn
		return nil
	}
	a.Start(vip1, "eth0")
	<-sending
	stopped := make(chan struct{})
	for range 2 { // the second caller gets the same guarantee
		go func() { a.Stop(vip1); stopped <- struct{}{} }()
	}
	select {
	case <-stopped:
		t.Error("stopped with an announcement under way")
	case <-time.After(100 * time.Millisecond):
	}
	close(goOn)
	<-stopped
	<-stopped
	a.running.Wait()
	if n := len(sending); n != 0 {
		t.Errorf("%d more announcements", n)
	}
}
