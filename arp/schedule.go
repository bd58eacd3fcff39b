package arp

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

// burst: when to announce again, counted from the first announcement. 1.1 and
// not 1.0 since a Linux neighbour ignores a reply for a second after its last
// update; the rest for neighbours and switches that lost the ones before.
var burst = [...]time.Duration{
	100 * time.Millisecond,
	1100 * time.Millisecond,
	2200 * time.Millisecond,
	4400 * time.Millisecond,
}

// After a failure (an interface that is down, say) the next attempt comes
// sooner than scheduled; the pause doubles.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// schedule announces one VIP until it is stopped.
type schedule struct {
	addr   netip.Addr
	ifname string

	mu      sync.Mutex // held while sending: stop waits for what is under way
	stopped bool
	done    chan struct{}
	sooner  chan time.Duration // announce after that time, and then a burst anew
}

func newSchedule(addr netip.Addr, ifname string) *schedule {
	return &schedule{addr: addr, ifname: ifname, done: make(chan struct{}), sooner: make(chan time.Duration, 1)}
}

// hurry has the schedule announce after wait, and go on with a burst; an earlier
// hurry that has not been heard yet will do.
func (s *schedule) hurry(wait time.Duration) {
	select {
	case s.sooner <- wait:
	default:
	}
}

// Start announces addr on ifname again 0.1, 1.1, 2.2 and 4.4 s from now, and
// then every Refresh, until Stop. The first announcement is Announce's.
// Started already on that interface, it changes nothing; on another, it
// starts anew there. After Close it does nothing.
//
// A failed attempt is repeated after 0.1 s, then ever less often; once one
// succeeds the burst begins anew, since neighbours heard nothing meanwhile. A
// cable that is out is no failure the kernel would tell: Announce when it is
// back.
func (a *Announcer) Start(addr netip.Addr, ifname string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	if running := a.schedules[addr]; running != nil {
		if running.ifname == ifname {
			return
		}
		running.stop()
	}
	s := newSchedule(addr, ifname)
	a.schedules[addr] = s
	a.running.Go(func() { a.run(s) })
}

// Again begins the burst of a running schedule anew, at once or as soon as it may: neighbours and
// switches may have missed or forgotten what they were told.
func (a *Announcer) Again(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.schedules[addr]; s != nil {
		s.hurry(0)
	}
}

// Repeat announces addr once more at once, if it is scheduled; what would be one
// frame too many in a second, as soon as it may, with a burst behind it.
func (a *Announcer) Repeat(addr netip.Addr) {
	a.mu.Lock()
	s := a.schedules[addr]
	a.mu.Unlock()
	if s == nil {
		return
	}
	_, err := a.sendScheduled(s)
	if back := (*heldBack)(nil); errors.As(err, &back) {
		s.hurry(back.wait)
	}
}

// Stop ends the schedule of addr, and forgets its first announcement where that
// still waits. Once it has returned, neither is handed to the kernel any more: a
// holder that lets go calls it before it unbinds and releases. It waits at most for
// what is under way, tens of µs. An Announce of the caller's own is the caller's
// to not make.
func (a *Announcer) Stop(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock() // until stopped: the promise holds for a second caller too
	if s := a.schedules[addr]; s != nil {
		s.stop()
		delete(a.schedules, addr)
	}
	a.pace.Lock()
	defer a.pace.Unlock()
	a.dequeue(addr)
}

func (s *schedule) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		close(s.done)
	}
}

func (a *Announcer) run(s *schedule) {
	first, step, retry := time.Now(), 0, retryMin
	timer := time.NewTimer(a.pause(step, first))
	defer timer.Stop()
	for {
		select {
		case <-s.done:
			return
		case wait := <-s.sooner:
			step = -1
			timer.Reset(wait)
			continue
		case <-timer.C:
		}
		stopped, err := a.sendScheduled(s)
		var back *heldBack
		switch {
		case stopped:
			return
		case errors.As(err, &back):
			timer.Reset(back.wait)
			continue
		case err != nil:
			timer.Reset(retry)
			retry = min(2*retry, retryMax, max(time.Duration(a.refresh.Load()), retryMin))
			step = -1 // what succeeds next is the first of a new burst
			continue
		case step < 0:
			first, retry = time.Now(), retryMin
		}
		step++
		timer.Reset(a.pause(step, first))
	}
}

// pause is the time until announcement number step after the first.
func (a *Announcer) pause(step int, first time.Time) time.Duration {
	if step < len(a.burst) {
		return time.Until(first.Add(a.burst[step]))
	}
	return time.Duration(a.refresh.Load())
}

// sendScheduled announces unless s is stopped, and keeps stop waiting meanwhile.
func (a *Announcer) sendScheduled(s *schedule) (stopped bool, err error) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return true, nil
	}
	err = a.send(s.addr, s.ifname, false)
	s.mu.Unlock()
	if back := (*heldBack)(nil); err != nil && !errors.As(err, &back) {
		a.failed(s.addr, s.ifname, err)
	}
	return false, err
}
