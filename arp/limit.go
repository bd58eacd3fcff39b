package arp

import (
	"sync"
	"time"
)

// A switch with ARP inspection shuts a port that sends more than 15 ARP packets
// in a second (Cisco's default, "ip arp inspection limit rate 15"). So what can
// wait leaves only while no more than this have left in a second, which keeps
// room for the kernel's own and for two VIPs that are taken meanwhile: what a
// phone waits for goes out at once, whatever has left before.
const (
	mostFrames  = 10
	limitWindow = time.Second
)

// limiter keeps the times of the newest frames of each interface.
type limiter struct {
	mu   sync.Mutex
	sent map[string]*ring
}

type ring struct {
	at   [mostFrames]time.Time
	next int // the oldest
}

func newLimiter() *limiter { return &limiter{sent: map[string]*ring{}} }

// take lets n frames that can wait go out together by ifname, leaving spare more
// for those that can wait less; else it says when to try again.
func (l *limiter) take(ifname string, n, spare int) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r, now := l.of(ifname), time.Now()
	// The frame that must have left the window before the last of them may go.
	oldest := r.at[(r.next+n-1+spare)%mostFrames]
	if since := now.Sub(oldest); !oldest.IsZero() && since < limitWindow {
		return limitWindow - since, false
	}
	r.count(n, now)
	return 0, true
}

// count notes n frames that cannot wait: those that can make room for them.
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
		l.sent[ifname] = new(ring)
	}
	return l.sent[ifname]
}

func (r *ring) count(n int, now time.Time) {
	for range n {
		r.at[r.next] = now
		r.next = (r.next + 1) % mostFrames
	}
}
