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
	// phonesEvery is how often a holder lists its phones. A phone that has connected
	// since the last list is not woken.
	phonesEvery = 2 * time.Second
	// sharePause follows each message, so that messages about thousands of phones do not
	// crowd heartbeats out of the loop or out of a socket's buffer.
	sharePause = 5 * time.Millisecond
)

// phoneBook makes phones that are connected by TCP notice a takeover (§5.5). It tells the
// other nodes which phones are connected to the VIPs held here, keeps what they tell, and
// wakes their phones when this node takes a VIP. All of it runs beside the loop.
type phoneBook struct {
	a     *Agent
	heard chan elect.Connections
	wakes chan netip.Addr // VIPs taken
	lefts chan netip.Addr // VIPs let go
	mu    sync.Mutex
	book  *phones.Book
	pace  sync.Mutex // held during a few keepalives and the pause after them

	shared, refused, woken, errors atomic.Uint64
}

func newPhoneBook(a *Agent) *phoneBook {
	return &phoneBook{a: a, book: phones.NewBook(), heard: make(chan elect.Connections, 256),
		wakes: make(chan netip.Addr, 256), lefts: make(chan netip.Addr, 256)}
}

// run starts sharing and listening, and wakes phones, until ctx ends.
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

// share tells the other nodes of the phones here, round after round. When a VIP is let
// go, it tells of that VIP's phones at once: the PBX still has their connections.
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

// tell tells of the phones on some VIPs, also of VIPs without phones: a message makes
// older entries of its VIP age.
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
			err = cmp.Or(err, numbers.Fill(vip, of)) // phones without numbers are told all the same, and some of them can be woken
		}
		size := elect.MaxConnections
		if vip.Is6() {
			size /= 2 // to fit into the MTU
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

// take takes a message from the network without waiting.
func (b *phoneBook) take(m elect.Connections) {
	select {
	case b.heard <- m:
	default:
		b.refused.Add(uint64(len(m.Items)))
	}
}

// keep writes what was heard into the book.
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

// hear takes what another node says about the phones on a VIP it holds.
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

// flushed has the phones on a VIP woken. By now the VIP is bound and announced here, and
// its old connection-tracking entries are gone. A later flush would remove the entries of
// phones that come back.
func (b *phoneBook) flushed(vip netip.Addr) {
	if b.a.Ends.Ahead(vip) {
		b.hand(b.wakes, vip)
	}
}

// left has the next holder told of the phones on a VIP that has just been unbound.
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
