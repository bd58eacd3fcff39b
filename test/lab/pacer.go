package lab

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pacer is the thread of an observer. It asks at fixed times and reads answers as soon as
// they arrive. Questions missed because the machine was busy are skipped, not made up
// for.
type pacer struct {
	fd       int // non-blocking
	interval time.Duration
	linger   time.Duration // how long it still listens after Stop, unless settled reports that everything is answered
	ask      func(now time.Duration)
	hear     func()
	settled  func() bool

	once    sync.Once
	stopped atomic.Bool
	cpu     atomic.Int64
	done    chan struct{}
}

// ahead is the observer's real-time priority. It is above that of an agent under its
// unit's policy, so that the agent being measured does not hold up the observer.
const ahead = 98

func (p *pacer) start() {
	p.done = make(chan struct{})
	holdCollector()
	go func() {
		defer close(p.done)
		defer freeCollector()
		_ = onOwnThread(func() error {
			p.run()
			return nil
		})
		unix.Close(p.fd)
	}()
}

// Stop ends the observation and waits for answers still under way. The observations can
// still be read. Stopping twice is no error.
func (p *pacer) Stop() {
	p.once.Do(func() { p.stopped.Store(true) })
	<-p.done
}

// CPU returns the processor time of the observer's thread so far. It includes the
// kernel's work of carrying the observer's questions through the lab.
func (p *pacer) CPU() time.Duration { return time.Duration(p.cpu.Load()) }

func (p *pacer) run() {
	// Both settings only make the observer more exact. Without them (some control groups
	// refuse real-time scheduling) it is merely later. A nice value would not help: where
	// the kernel schedules sessions as groups, it does not count against other sessions.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	// A test process that is real-time itself has its reasons, and keeps its priority.
	if attr, err := unix.SchedGetAttr(0, 0); err != nil || attr.Priority == 0 {
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: ahead, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
		}, 0)
	}

	next := Now()
	for beats := 0; !p.stopped.Load(); beats++ {
		if now := Now(); now >= next {
			p.ask(now)
			next += p.interval * (1 + (now-next)/p.interval)
		}
		p.wait(next)
		if beats%256 == 0 {
			p.account()
		}
	}
	for end := Now() + p.linger; Now() < end && !p.settled(); {
		p.wait(min(end, Now()+time.Millisecond))
	}
	p.account()
}

// wait reads answers until the given time.
func (p *pacer) wait(until time.Duration) {
	fds := [1]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for {
		left := until - Now()
		if left <= 0 {
			return
		}
		timeout := unix.NsecToTimespec(int64(left))
		n, err := unix.Ppoll(fds[:], &timeout, nil)
		if err != nil && err != unix.EINTR || err == nil && n == 0 {
			return
		}
		if n > 0 {
			p.hear()
		}
	}
}

func (p *pacer) account() {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &usage) == nil {
		p.cpu.Store(usage.Utime.Nano() + usage.Stime.Nano())
	}
}
