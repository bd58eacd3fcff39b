package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"sipalive/vip/phones"
)

// wakesAtOnce each wakePause, 1000 a second whatever the VIPs: each is a phone that
// connects, with TLS mostly, and registers.
const (
	wakesAtOnce = 10
	wakePause   = 10 * time.Millisecond
)

// wakeRounds are when after a takeover phones are woken: again, since keepalive,
// answer or reset may be lost, or the router late. Keepalives more than 500 ms apart:
// a Linux phone answers no sooner (tcp_invalid_ratelimit). One that is connected again has
// another port, or shrugs it off.
var wakeRounds = []struct {
	after time.Duration
	send  func(*phones.Waker, phones.Connection) error
	added bool // since the last round alone
}{
	{0, (*phones.Waker).Wake, false},
	{100 * time.Millisecond, (*phones.Waker).Wake, true},   // the last holder's last word
	{300 * time.Millisecond, (*phones.Waker).Reset, false}, // some drop keepalives
	{time.Second, (*phones.Waker).Wake, false},
	{4 * time.Second, (*phones.Waker).Wake, false},
	{10 * time.Second, (*phones.Waker).Reset, false},
}

// wake sends the keepalives while the VIP is held here.
func (b *phoneBook) wake(ctx context.Context, vip netip.Addr) {
	w, err := phones.OpenWaker(vip)
	if err != nil {
		b.a.recorder.warn("wake the phones connected by TCP", err)
		return
	}
	defer w.Close()
	all := newList()
	began := b.a.Now()
	for i, round := range wakeRounds {
		if !pause(ctx, time.Duration(began.Add(round.after)-b.a.Now())) || !b.a.Ends.Ahead(vip) {
			return
		}
		to := b.told(vip)
		if i == 0 {
			b.endStale(vip, to)
		}
		if added := all.add(to); round.added {
			to = added
		} else {
			to = all.connections
		}
		b.send(ctx, vip, to, func(c phones.Connection) error { return round.send(w, c) })
	}
}

// list is what one takeover wakes: phones.Most at most, whatever more is said meanwhile.
type list struct {
	connections []phones.Connection
	at          map[phones.Connection]int // where in connections; without numbers
}

func newList() *list { return &list{at: map[phones.Connection]int{}} }

// add gives those that were not in it. The last holder's last word names all once
// more, with newer numbers.
func (l *list) add(said []phones.Connection) (added []phones.Connection) {
	before := len(l.connections)
	for _, c := range said {
		unnumbered := phones.Connection{Phone: c.Phone, Port: c.Port}
		if i, known := l.at[unnumbered]; known {
			l.connections[i] = c
		} else if len(l.connections) < phones.Most {
			l.at[unnumbered] = len(l.connections)
			l.connections = append(l.connections, c)
		}
	}
	return l.connections[before:]
}

// told gives what the book has of a VIP, once.
func (b *phoneBook) told(vip netip.Addr) []phones.Connection {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.book.Take(vip)
}

// endStale comes before the first keepalive: what a phone has connected since is none of it.
func (b *phoneBook) endStale(vip netip.Addr, told []phones.Connection) {
	if err := phones.EndStale(vip, told); err != nil {
		b.a.recorder.warn("end what an earlier hold left of the phones' TCP connections", err)
	}
}

// send goes through all of them while the VIP is held.
func (b *phoneBook) send(ctx context.Context, vip netip.Addr, to []phones.Connection, send func(phones.Connection) error) {
	for few := range slices.Chunk(to, wakesAtOnce) {
		if !b.sendFew(ctx, vip, few, send) {
			return
		}
	}
}

// sendFew reports whether to go on.
func (b *phoneBook) sendFew(ctx context.Context, vip netip.Addr, few []phones.Connection, send func(phones.Connection) error) bool {
	b.pace.Lock()
	defer b.pace.Unlock()
	if !b.a.Ends.Ahead(vip) {
		return false
	}
	for _, c := range few {
		if send(c) != nil {
			b.errors.Add(1)
		} else {
			b.woken.Add(1)
		}
	}
	return pause(ctx, wakePause)
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
