package arp

import (
	"net/netip"
	"os"
	"slices"
	"time"
)

// MinLimit is the smallest Options.Limit that leaves room for repetitions.
const MinLimit = 5

// queueQuiet is how long second forms wait after the last call of Announce. VIPs that are
// taken together come a few ms apart; so each is announced once before any is announced
// twice.
const queueQuiet = 50 * time.Millisecond

// queue holds the first announcements on an interface that has a limit. The first form of
// every VIP leaves before the second form of any, in the order of the Announce calls.
// Repetitions, defences and questions come after all of them.
type queue struct {
	ifname         string
	firsts, second []netip.Addr
	quiet          time.Time // the second forms wait until then
	timer          *time.Timer
}

// enqueue sends the first announcement of addr as soon as the limit allows, possibly at
// once.
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

// dequeue removes addr from every queue. The caller holds a.pace, so no announcement from
// a queue is being sent meanwhile.
func (a *Announcer) dequeue(addr netip.Addr) {
	is := func(other netip.Addr) bool { return other == addr }
	for _, q := range a.queues {
		q.firsts, q.second = slices.DeleteFunc(q.firsts, is), slices.DeleteFunc(q.second, is)
		a.limit.hold(q.ifname, q.waiting())
	}
}

// waiting returns how many frames may still have to leave.
func (q *queue) waiting() int { return 2*len(q.firsts) + len(q.second) }

// drain sends what may leave now and sets the timer for the rest.
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

// sendNext sends one frame. It counts the frame after the send, so that an agent that was
// held up during the send waits that much longer before the next one.
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
	if !second && addr.Is4() { // ND has only one form
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

// SetLimit changes Options.Limit after a reload.
func (a *Announcer) SetLimit(limit int) {
	a.limit.set(limit)
	a.pace.Lock()
	defer a.pace.Unlock()
	for _, q := range a.queues {
		a.drain(q)
	}
}

// Waits reports whether Options.Limit still holds back the first announcement of addr.
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

// Left receives a value when a first announcement no longer waits: its turn has come.
// Values that nobody has received yet merge into one.
func (a *Announcer) Left() <-chan struct{} { return a.left }
