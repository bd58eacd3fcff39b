package agent

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sipalive/elect"
	"sipalive/vip/phones"
)

const (
	// phonesEvery is how often a holder lists its phones: who has connected since is
	// not woken.
	phonesEvery = 2 * time.Second
	// A few messages at a time, so that a thousand phones crowd no heartbeat out of a
	// socket's buffer.
	sharesAtOnce = 4
	sharePause   = 20 * time.Millisecond
	// wakesAtOnce each wakePause, 1000 a second: each is a phone that connects, with
	// TLS mostly, and registers.
	wakesAtOnce = 10
	wakePause   = 10 * time.Millisecond
)

// wakeRounds are when after a takeover each phone is woken: again, since keepalive,
// answer or reset may be lost, or the router late. More than 500 ms apart: a Linux
// phone answers no sooner (tcp_invalid_ratelimit). A phone that is connected again
// has another port, or shrugs it off.
var wakeRounds = []struct {
	after time.Duration
	send  func(*phones.Waker, phones.Connection) error
}{
	{0, (*phones.Waker).Wake},
	{600 * time.Millisecond, (*phones.Waker).Wake},
	{1300 * time.Millisecond, (*phones.Waker).Reset}, // who is left drops keepalives
	{4 * time.Second, (*phones.Waker).Wake},
	{10 * time.Second, (*phones.Waker).Reset},
}

// phoneBook has phones that are connected by TCP hear of a takeover (§5.5): it tells
// the other nodes of those on the VIPs held here, keeps what they tell, and wakes
// them when a VIP is taken. All of it is beside the loop.
type phoneBook struct {
	a      *Agent
	wakes  chan netip.Addr // taken
	lefts  chan netip.Addr // let go
	mu     sync.Mutex
	book   *phones.Book
	shared atomic.Uint64
	woken  atomic.Uint64
	errors atomic.Uint64
}

func newPhoneBook(a *Agent) *phoneBook {
	return &phoneBook{a: a, book: phones.NewBook(), wakes: make(chan netip.Addr, 256), lefts: make(chan netip.Addr, 256)}
}

// run lists and wakes until ctx ends.
func (b *phoneBook) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.share(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case vip := <-b.wakes:
			wg.Go(func() { b.wake(ctx, vip) })
		}
	}
}

// share tells the other nodes of the phones here, round after round, and at once of
// those on a VIP that was let go: the PBX has their connections still.
func (b *phoneBook) share(ctx context.Context) {
	numbers, err := phones.OpenNumbers()
	if err != nil {
		b.a.recorder.warn("read the sequence numbers of TCP connections", err)
	} else {
		defer numbers.Close()
	}
	tick := time.NewTicker(phonesEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case vip := <-b.lefts:
			err = b.tell(ctx, numbers, []netip.Addr{vip}, true)
		case <-tick.C:
			err = b.tell(ctx, numbers, b.held(), false)
		}
		if err != nil && said != err.Error() {
			said = err.Error()
			b.a.recorder.warn("list the phones connected by TCP", err)
		}
	}
}

// tell tells of VIPs, of one without phones too: what is known of others ages by that.
func (b *phoneBook) tell(ctx context.Context, numbers *phones.Numbers, vips []netip.Addr, left bool) error {
	if len(vips) == 0 {
		return nil
	}
	all, err := phones.List(vips)
	if err != nil {
		return err
	}
	sent := 0
	for _, vip := range vips {
		of := all[vip]
		if numbers != nil {
			if err = numbers.Fill(vip, of); err != nil {
				return err
			}
		}
		for first := 0; first == 0 || first < len(of); first += elect.MaxConnections {
			part := of[first:min(first+elect.MaxConnections, len(of))]
			b.a.report(elect.Share{Connections: elect.Connections{VIP: vipID(vip), Items: toElect(part)}, Left: left})
			b.shared.Add(uint64(len(part)))
			if sent++; sent%sharesAtOnce == 0 && !pause(ctx, sharePause) {
				return nil
			}
		}
	}
	return nil
}

func (b *phoneBook) held() (vips []netip.Addr) {
	for _, l := range b.a.names().leases {
		if l.vip != nil && b.a.Ends.Ahead(l.address) {
			vips = append(vips, l.address)
		}
	}
	return vips
}

// hear takes what another node says of the phones on a VIP it holds.
func (b *phoneBook) hear(m elect.Connections) {
	l := b.a.names().byID[m.VIP]
	if l == nil || l.vip == nil || l.left {
		return
	}
	connections := make([]phones.Connection, 0, len(m.Items))
	for _, c := range m.Items {
		connections = append(connections, phones.Connection(c))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.book.Hear(l.address, connections, time.Duration(b.a.Now()))
}

func toElect(connections []phones.Connection) (items []elect.Connection) {
	for _, c := range connections {
		items = append(items, elect.Connection(c))
	}
	return items
}

// taken has the phones on a VIP woken, which has been bound and announced.
func (b *phoneBook) taken(ap *applied) { b.hand(b.wakes, ap) }

// left has the next holder told of the phones on a VIP, which has been unbound.
func (b *phoneBook) left(ap *applied) { b.hand(b.lefts, ap) }

func (b *phoneBook) hand(to chan netip.Addr, ap *applied) {
	if ap.vip == nil {
		return
	}
	select {
	case to <- ap.address.IP:
	default: // more at once than a file has VIPs: their phones notice by themselves
	}
}

// wake sends the keepalives while the VIP is held here. The last holder's last word
// may come after the first round.
func (b *phoneBook) wake(ctx context.Context, vip netip.Addr) {
	var w *phones.Waker
	var connections []phones.Connection
	began := b.a.Now()
	for _, round := range wakeRounds {
		if !pause(ctx, time.Duration(began.Add(round.after)-b.a.Now())) || !b.a.Ends.Ahead(vip) {
			return
		}
		b.mu.Lock()
		connections = append(connections, b.book.Take(vip)...)
		b.mu.Unlock()
		if len(connections) == 0 {
			continue
		}
		if w == nil {
			var err error
			if w, err = phones.OpenWaker(vip); err != nil {
				b.a.recorder.warn("wake the phones connected by TCP", err)
				return
			}
			defer w.Close()
		}
		b.send(ctx, vip, connections, func(c phones.Connection) error { return round.send(w, c) })
	}
}

// send goes through all of them while the VIP is held.
func (b *phoneBook) send(ctx context.Context, vip netip.Addr, connections []phones.Connection, send func(phones.Connection) error) {
	for i, c := range connections {
		if i > 0 && i%wakesAtOnce == 0 && !pause(ctx, wakePause) || !b.a.Ends.Ahead(vip) {
			return
		}
		if send(c) != nil {
			b.errors.Add(1)
		} else {
			b.woken.Add(1)
		}
	}
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

func (b *phoneBook) addPhoneCounters(c map[string]uint64) {
	c["phones_shared"], c["phones_woken"], c["phones_wake_errors"] = b.shared.Load(), b.woken.Load(), b.errors.Load()
}
