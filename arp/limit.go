package arp

import (
	"sync"
	"time"
)

// A switch with ARP inspection shuts a port that sends more than 15 ARP packets
// in a second (Cisco's default, "ip arp inspection limit rate 15"); the kernel
// speaks too. So this is all that leaves by one interface in any second.
const (
	mostFrames  = 12
	limitWindow = time.Second
)

// limiter keeps the times of the newest frames of each interface.
type limiter struct {
	mu   sync.Mutex
	sent map[string]*[mostFrames]time.Time // a ring, oldest at next
	next map[string]int
}

func newLimiter() *limiter {
	return &limiter{sent: map[string]*[mostFrames]time.Time{}, next: map[string]int{}}
}

// take lets one frame go out by ifname, leaving spare more for those that are
// more urgent; else it says when to try again.
func (l *limiter) take(ifname string, spare int) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ring := l.sent[ifname]
	if ring == nil {
		ring = new([mostFrames]time.Time)
		l.sent[ifname] = ring
	}
	at := l.next[ifname]
	now := time.Now()
	// The frame that must have left the window before this one may go.
	oldest := ring[(at+spare)%mostFrames]
	if since := now.Sub(oldest); !oldest.IsZero() && since < limitWindow {
		return limitWindow - since, false
	}
	ring[at] = now
	l.next[ifname] = (at + 1) % mostFrames
	return 0, true
}
