package arp

import (
	"sync"
	"sync/atomic"
	"time"
)

// A switch with ARP inspection shuts a port that sends more than 15 ARP packets
// in a second (Cisco's default, "ip arp inspection limit rate 15"). So what can
// wait leaves only while no more than this have left in a second, which keeps
// room for the kernel's own and for two VIPs that are taken meanwhile: what a
// phone waits for goes out at once, whatever has left before, unless the
// operator has set a limit for that too.
const (
	mostFrames  = 10
	limitWindow = time.Second

	// pacedWindow is the second of an operator's limit, and a tenth more: frames are
	// on the wire a little later than they were sent, some more than others, and the
	// switch counts them there.
	pacedWindow = 1100 * time.Millisecond
)

// limiter keeps the times of the newest frames of each interface.
type limiter struct {
	limit atomic.Int32 // [announce] limit; 0: none for first announcements
	mu    sync.Mutex
	sent  map[string]*ring
}

type ring struct {
	at      []time.Time
	next    int // the oldest
	waiting int // frames of first announcements that do: nothing else leaves
}

func newLimiter() *limiter { return &limiter{sent: map[string]*ring{}} }

// set changes the limit; what has left still counts.
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

// take lets n frames that can wait go out together by ifname, leaving spare more
// for those that can wait less; else it says when to try again.
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

// share is how many frames may leave in which time that are no first form of a
// first announcement. Below an operator's limit a third stays free for those.
func (l *limiter) share() (most int, window time.Duration) {
	limit := int(l.limit.Load())
	if limit == 0 {
		return mostFrames, limitWindow
	}
	return min(mostFrames, limit-limit/3), pacedWindow
}

// room says how long the next frame of the first announcements that wait for their
// turn has to wait still; the second form, as long as a repetition would. It counts
// nothing.
func (l *limiter) room(ifname string, second bool) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most, window := l.share()
	limit := int(l.limit.Load())
	if limit == 0 {
		return 0 // a reload has ended it
	}
	if !second {
		most = limit
	}
	return l.of(ifname).wait(1, most, window, time.Now())
}

// hold has everything else wait while frames of first announcements do.
func (l *limiter) hold(ifname string, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(ifname).waiting = waiting
}

// count notes n frames that have left, or do, without having asked.
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

// wait is until n more frames are no more than most in the window.
func (r *ring) wait(n, most int, window time.Duration, now time.Time) time.Duration {
	// The frame that must have left the window before the last of them may go.
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

// resize keeps the newest.
func (r *ring) resize(size int) {
	old := *r
	r.at, r.next = make([]time.Time, size), 0
	for i := range old.at {
		r.at[r.next] = old.at[(old.next+i)%len(old.at)]
		r.next = (r.next + 1) % size
	}
}
