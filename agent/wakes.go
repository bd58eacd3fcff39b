package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"sipalive/vip/phones"
)

// wakesAtOnce phones are woken per wakePause: 1000 a second for all VIPs together. Each
// of them is a phone that connects, mostly with TLS, and registers.
const (
	wakesAtOnce = 10
	wakePause   = 10 * time.Millisecond
)

// wakeRounds are the times after a takeover at which phones are woken. There are several,
// because a keepalive, its answer or a reset may be lost, or the router may be late.
// Keepalives are more than 500 ms apart: a Linux phone answers no sooner
// (tcp_invalid_ratelimit). A phone that has connected again uses another port, or ignores
// the keepalive.
var wakeRounds = []struct {
	after time.Duration
	send  func(*phones.Waker, phones.Connection) error
	added bool // only to what was added since the last round
}{
	{0, (*phones.Waker).Wake, false},
	{100 * time.Millisecond, (*phones.Waker).Wake, true},   // what the last holder's last message added to the list
	{300 * time.Millisecond, (*phones.Waker).Reset, false}, // some phones drop keepalives
	{time.Second, (*phones.Waker).Wake, false},
	{4 * time.Second, (*phones.Waker).Wake, false},
	{10 * time.Second, (*phones.Waker).Reset, false},
}

// wake sends the keepalives and resets while the VIP is held here.
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

// list contains the connections that one takeover wakes: phones.Most at most, however
// many are told meanwhile.
type list struct {
	connections []phones.Connection
	at          map[phones.Connection]int // index in connections; the key has no sequence numbers
}

func newList() *list { return &list{at: map[phones.Connection]int{}} }

// add returns the connections that were not in the list yet. The last holder's last
// message names all of them once more, with newer numbers.
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

// told returns what the book contains about a VIP, and removes it from the book.
func (b *phoneBook) told(vip netip.Addr) []phones.Connection {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.book.Take(vip)
}

// endStale runs before the first keepalive: connections that phones open from then on are
// not stale.
func (b *phoneBook) endStale(vip netip.Addr, told []phones.Connection) {
	if err := phones.EndStale(vip, told); err != nil {
		b.a.recorder.warn("end what an earlier hold left of the phones' TCP connections", err)
	}
}

// send sends to all of these connections while the VIP is held.
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

// pause waits for d and reports whether ctx is still alive.
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
