package arp

import (
	"net/netip"
	"os"
	"slices"
	"time"
)

// MinLimit is the least Options.Limit that leaves room for what repeats.
const MinLimit = 5

// queueQuiet is how long after the last first announcement second forms wait: VIPs
// that are taken together come a few ms apart, and each is heard of once before any
// is twice.
const queueQuiet = 50 * time.Millisecond

// queue holds the first announcements on an interface that has a limit. The first
// form of every VIP leaves before the second of any, each in the order of Announce;
// what repeats, defends or asks comes after all of them.
type queue struct {
	ifname         string
	firsts, second []netip.Addr
	quiet          time.Time // until then the second forms wait
	timer          *time.Timer
}

// enqueue sends the first announcement of addr as soon as the limit allows, which
// may be now.
func (a *Announcer) enqueue(addr netip.Addr, ifname string) error {
	a.pace.Lock()
	defer a.pace.Unlock()
	switch {
	case !addr.IsValid():
		return errNoAddress
	case a.queues == nil:
		return os.ErrClosed
	}
	a.dequeue(addr)
	q := a.queues[ifname]
	if q == nil {
		q = &queue{ifname: ifname}
		q.timer = time.AfterFunc(time.Hour, func() {
			a.pace.Lock()
			defer a.pace.Unlock()
			a.drain(q)
		})
		a.queues[ifname] = q
	}
	q.firsts, q.quiet = append(q.firsts, addr), time.Now().Add(queueQuiet)
	a.drain(q)
	return nil
}

// dequeue forgets addr. Whoever calls it holds a.pace, and nothing of addr is under
// way then.
func (a *Announcer) dequeue(addr netip.Addr) {
	is := func(other netip.Addr) bool { return other == addr }
	for _, q := range a.queues {
		q.firsts, q.second = slices.DeleteFunc(q.firsts, is), slices.DeleteFunc(q.second, is)
		a.limit.hold(q.ifname, q.waiting())
	}
}

// waiting is how many frames do.
func (q *queue) waiting() int { return 2*len(q.firsts) + len(q.second) }

// drain sends what may leave now, and sets the timer for what has to wait.
func (a *Announcer) drain(q *queue) {
	defer func() { a.limit.hold(q.ifname, q.waiting()) }()
	a.limit.hold(q.ifname, q.waiting())
	q.timer.Stop()
	for q.waiting() > 0 {
		second := len(q.firsts) == 0
		wait := a.limit.room(q.ifname, second)
		if second {
			wait = max(wait, time.Until(q.quiet))
		}
		if wait > 0 {
			q.timer.Reset(wait)
			return
		}
		a.sendNext(q, second)
	}
}

// sendNext sends one frame. It is counted once it has left: an agent that was held
// up meanwhile sends the next so much later.
func (a *Announcer) sendNext(q *queue, second bool) {
	from := &q.firsts
	if second {
		from = &q.second
	}
	addr := (*from)[0]
	*from = (*from)[1:]
	if !second {
		select {
		case a.left <- struct{}{}:
		default:
		}
	}
	if !a.may(addr) {
		return
	}
	if err := a.sendOne(addr, q.ifname, second); err != nil {
		a.failed(addr, q.ifname, err)
		return // the schedule tries again
	}
	a.limit.count(q.ifname, 1)
	if !second && addr.Is4() { // neighbour discovery has one form
		q.second = append(q.second, addr)
	}
}

func (a *Announcer) clearQueues() {
	a.pace.Lock()
	defer a.pace.Unlock()
	for _, q := range a.queues {
		q.timer.Stop()
		q.firsts, q.second = nil, nil
	}
	a.queues = nil
}

// SetLimit changes Options.Limit, after a reload.
func (a *Announcer) SetLimit(limit int) {
	a.limit.set(limit)
	a.pace.Lock()
	defer a.pace.Unlock()
	for _, q := range a.queues {
		a.drain(q)
	}
}

// Waits reports whether the first announcement of addr has not left yet, for
// Options.Limit.
func (a *Announcer) Waits(addr netip.Addr) bool {
	if !a.limit.paced() {
		return false
	}
	a.pace.Lock()
	defer a.pace.Unlock()
	for _, q := range a.queues {
		if slices.Contains(q.firsts, addr) {
			return true
		}
	}
	return false
}

// Left wakes whoever Waits for first announcements: one waits no more.
func (a *Announcer) Left() <-chan struct{} { return a.left }
