package arp

import (
	"sync"
	"sync/atomic"
	"time"
)

// A switch with ARP inspection shuts a port that sends more than 15 ARP packets in a
// second (Cisco's default, "ip arp inspection limit rate 15"). So a frame that can wait
// leaves only if no more than mostFrames then have left in limitWindow. That leaves room
// for the kernel's own frames and for two VIPs taken meanwhile. A first announcement
// leaves at once, because phones wait for it, unless the operator has set a limit for
// that too.
const (
	mostFrames  = 10
	limitWindow = time.Second

	// pacedWindow replaces the second for an operator's limit, with a tenth more. Frames
	// reach the wire a little after they were sent, some later than others, and the
	// switch counts them there.
	pacedWindow = 1100 * time.Millisecond
)

// limiter keeps the times of the newest frames of each interface.
type limiter struct {
	limit atomic.Int32 // [announce] limit; 0: first announcements have no limit
	mu    sync.Mutex
	sent  map[string]*ring
}

type ring struct {
	at      []time.Time
	next    int // index of the oldest time
	waiting int // frames of first announcements that still wait; nothing else leaves meanwhile
}

func newLimiter() *limiter { return &limiter{sent: map[string]*ring{}} }

// set changes the limit. Frames that have left still count.
func (l *limiter) set(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit.Store(int32(limit))
	for _, r := range l.sent {
		r.resize(max(limit, mostFrames))
	}
}

// paced reports whether first announcements are limited too.
func (l *limiter) paced() bool { return l != nil && l.limit.Load() > 0 }

// take counts n frames that can wait and lets them leave together by ifname, if that
// leaves room for spare more urgent ones (of mostFrames; fewer under a low limit).
// Otherwise it counts nothing and returns when to try again.
func (l *limiter) take(ifname string, n, spare int) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r, now := l.of(ifname), time.Now()
	most, window := l.share()
	if r.waiting > 0 {
		return queueQuiet + time.Duration(r.waiting/most)*window, false
	}
	if wait = r.wait(n, most-spare*most/mostFrames, window, now); wait > 0 {
		return wait, false
	}
	r.count(n, now)
	return 0, true
}

// share returns how many frames that are not the first form of a first announcement may
// leave in which window. Under an operator's limit, a third stays free for first forms.
func (l *limiter) share() (most int, window time.Duration) {
	limit := int(l.limit.Load())
	if limit == 0 {
		return mostFrames, limitWindow
	}
	return min(mostFrames, limit-limit/3), pacedWindow
}

// room returns how long the next queued frame of a first announcement still has to wait.
// A second form waits as long as a repetition would. room counts nothing.
func (l *limiter) room(ifname string, second bool) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most, window := l.share()
	limit := int(l.limit.Load())
	if limit == 0 {
		return 0 // a reload has removed the limit
	}
	if !second {
		most = limit
	}
	return l.of(ifname).wait(1, most, window, time.Now())
}

// hold makes all other frames on ifname wait while waiting, the number of frames of first
// announcements that wait, is not 0.
func (l *limiter) hold(ifname string, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(ifname).waiting = waiting
}

// count counts n frames that left, or are about to, without asking take.
func (l *limiter) count(ifname string, n int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(ifname).count(n, time.Now())
}

func (l *limiter) of(ifname string) *ring {
	if l.sent[ifname] == nil {
		l.sent[ifname] = &ring{at: make([]time.Time, max(int(l.limit.Load()), mostFrames))}
	}
	return l.sent[ifname]
}

// wait returns the time until n more frames make no more than most in the window.
func (r *ring) wait(n, most int, window time.Duration, now time.Time) time.Duration {
	// Before they leave, this frame must be out of the window.
	oldest := r.at[(r.next+len(r.at)-(most-n+1))%len(r.at)]
	if oldest.IsZero() {
		return 0
	}
	return max(window-now.Sub(oldest), 0)
}

func (r *ring) count(n int, now time.Time) {
	for range n {
		r.at[r.next] = now
		r.next = (r.next + 1) % len(r.at)
	}
}

// resize keeps the newest times.
func (r *ring) resize(size int) {
	old := *r
	r.at, r.next = make([]time.Time, size), 0
	for i := range old.at {
		r.at[r.next] = old.at[(old.next+i)%len(old.at)]
		r.next = (r.next + 1) % size
	}
}
