package agent

import (
	"cmp"
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
	// sharePause is after each message, so that thousands of phones crowd no heartbeat
	// out of the loop or a socket's buffer.
	sharePause = 5 * time.Millisecond
)

// phoneBook has phones that are connected by TCP hear of a takeover (§5.5): it tells
// the other nodes of those on the VIPs held here, keeps what they tell, and wakes
// them when a VIP is taken. All of it is beside the loop.
type phoneBook struct {
	a     *Agent
	heard chan elect.Connections
	wakes chan netip.Addr // taken
	lefts chan netip.Addr // let go
	mu    sync.Mutex
	book  *phones.Book
	pace  sync.Mutex // held over a few keepalives and the pause after them

	shared, refused, woken, errors atomic.Uint64
}

func newPhoneBook(a *Agent) *phoneBook {
	return &phoneBook{a: a, book: phones.NewBook(), heard: make(chan elect.Connections, 256),
		wakes: make(chan netip.Addr, 256), lefts: make(chan netip.Addr, 256)}
}

// run lists and wakes until ctx ends.
func (b *phoneBook) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.share(ctx) })
	wg.Go(func() { b.keep(ctx) })
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
	for _, vip := range vips {
		of := all[vip]
		if numbers != nil {
			err = cmp.Or(err, numbers.Fill(vip, of)) // without numbers, some are woken all the same
		}
		size := elect.MaxConnections
		if vip.Is6() {
			size /= 2 // for the MTU's sake
		}
		for first := 0; first == 0 || first < len(of); first += size {
			part := of[first:min(first+size, len(of))]
			b.a.report(elect.Share{Connections: elect.Connections{VIP: vipID(vip), Items: toElect(part)}, Left: left})
			b.shared.Add(uint64(len(part)))
			if !pause(ctx, sharePause) {
				return err
			}
		}
	}
	return err
}

func (b *phoneBook) held() (vips []netip.Addr) {
	for _, l := range b.a.names().leases {
		if l.vip != nil && b.a.Ends.Ahead(l.address) {
			vips = append(vips, l.address)
		}
	}
	return vips
}

// take takes a message from the network and does not wait.
func (b *phoneBook) take(m elect.Connections) {
	select {
	case b.heard <- m:
	default:
		b.refused.Add(uint64(len(m.Items)))
	}
}

// keep writes into the book what was heard.
func (b *phoneBook) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-b.heard:
			b.hear(m)
		}
	}
}

// hear takes what another node says of the phones on a VIP it holds.
func (b *phoneBook) hear(m elect.Connections) {
	l := b.a.names().byID[m.VIP]
	if l == nil || l.vip == nil || l.left {
		b.refused.Add(uint64(len(m.Items)))
		return
	}
	connections := make([]phones.Connection, 0, len(m.Items))
	for _, c := range m.Items {
		connections = append(connections, phones.Connection(c))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused.Add(uint64(b.book.Hear(l.address, connections, time.Duration(b.a.Now()))))
}

func toElect(connections []phones.Connection) (items []elect.Connection) {
	for _, c := range connections {
		items = append(items, elect.Connection(c))
	}
	return items
}

// flushed has the phones on a VIP woken that has been bound and announced here, and
// whose connection-tracking entries of before are gone: those of the phones that come
// back would go with them.
func (b *phoneBook) flushed(vip netip.Addr) {
	if b.a.Ends.Ahead(vip) {
		b.hand(b.wakes, vip)
	}
}

// left has the next holder told of the phones on a VIP, which has been unbound.
func (b *phoneBook) left(ap *applied) {
	if ap.vip != nil {
		b.hand(b.lefts, ap.address.IP)
	}
}

func (b *phoneBook) hand(to chan netip.Addr, vip netip.Addr) {
	select {
	case to <- vip:
	default: // more at once than a file has VIPs: their phones notice by themselves
	}
}

func (b *phoneBook) addPhoneCounters(c map[string]uint64) {
	c["phones_shared"], c["phones_refused"] = b.shared.Load(), b.refused.Load()
	c["phones_woken"], c["phones_wake_errors"] = b.woken.Load(), b.errors.Load()
}
