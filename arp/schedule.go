package arp

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

// burst says when to announce again, counted from the first announcement. It has 1.1 s
// and not 1.0 because a Linux neighbour ignores a reply for a second after its last
// update. The later ones are for neighbours and switches that lost the earlier ones.
var burst = [...]time.Duration{
	100 * time.Millisecond,
	1100 * time.Millisecond,
	2200 * time.Millisecond,
	4400 * time.Millisecond,
}

// After a failure (for example, the interface is down) the next attempt comes sooner than
// scheduled. The pause doubles with each failure.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// schedule announces one VIP until it is stopped.
type schedule struct {
	addr   netip.Addr
	ifname string

	mu      sync.Mutex // held while sending, so that stop waits for that
	stopped bool
	done    chan struct{}
	sooner  chan time.Duration // announce after that time, then begin the burst again
}

func newSchedule(addr netip.Addr, ifname string) *schedule {
	return &schedule{addr: addr, ifname: ifname, done: make(chan struct{}), sooner: make(chan time.Duration, 1)}
}

// hurry makes the schedule announce after wait and begin its burst again. If an earlier
// hurry has not been received yet, that one stands.
func (s *schedule) hurry(wait time.Duration) {
	select {
	case s.sooner <- wait:
	default:
	}
}

// Start announces addr on ifname again 0.1, 1.1, 2.2 and 4.4 s from now, and then every
// Refresh, until Stop. Announce sends the first announcement. If addr is already
// scheduled on ifname, Start changes nothing; if on another interface, it stops that
// schedule and starts one on ifname. After Close it does nothing.
//
// A failed attempt is repeated after 0.1 s, then ever less often. After the next success
// the burst begins again, because neighbours heard nothing meanwhile. The kernel reports
// no failure while the cable is out: call Again when the link is back.
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

// Again begins the burst of a running schedule again, at once or as soon as the limit
// allows, because neighbours and switches may have missed or forgotten the announcements.
func (a *Announcer) Again(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.schedules[addr]; s != nil {
		s.hurry(0)
	}
}

// Repeat announces addr once more at once, if it is scheduled. If the limit holds that
// back, the announcement leaves as soon as the limit allows, followed by a burst.
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

// Stop ends the schedule of addr and removes its first announcement if that still waits.
// After Stop has returned, neither hands a frame to the kernel: a holder that lets go
// calls Stop before it unbinds and releases. Stop waits at most for a send under way,
// tens of µs. The caller must not call Announce for addr at the same time.
func (a *Announcer) Stop(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock() // held to the end, so that a second caller also returns only after the stop
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
			step = -1 // the next success begins a burst
			continue
		case step < 0:
			first, retry = time.Now(), retryMin
		}
		step++
		timer.Reset(a.pause(step, first))
	}
}

// pause returns the time until announcement number step after the first.
func (a *Announcer) pause(step int, first time.Time) time.Duration {
	if step < len(a.burst) {
		return time.Until(first.Add(a.burst[step]))
	}
	return time.Duration(a.refresh.Load())
}

// sendScheduled announces unless s is stopped. stop waits for it.
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
