package phones

import (
	"maps"
	"net/netip"
	"time"
)

// Stale is how long the book keeps a connection that the holder's later messages do not
// name: a few of the holder's rounds, since each may get lost.
const Stale = 7 * time.Second

// Forgotten is how long nothing was said of a VIP before its connections may go to make
// room: nobody will take the VIP any more.
const Forgotten = time.Hour

// Book keeps what other nodes say of the connections on the VIPs they hold. It has no
// clock: each call passes the time, on a clock that only goes forward. It is not safe for
// use by several goroutines.
type Book struct {
	pages  map[netip.Addr]*page
	size   int
	pruned time.Duration // when makeRoom last searched the book
}

// pruneEvery is the least time between two searches: a full book is not searched for each
// packet.
const pruneEvery = time.Second

// page holds the connections of one VIP. A connection that the holder no longer names
// ages against the holder's last message, not against the clock: after a holder has been
// dead for a minute, its phones still wait.
type page struct {
	heard   time.Duration
	entries map[key]entry
}

type key struct {
	phone netip.AddrPort
	port  uint16
}

type entry struct {
	Connection
	heard time.Duration
}

// NewBook makes an empty book.
func NewBook() *Book { return &Book{pages: map[netip.Addr]*page{}} }

// Hear takes a part, or all, of what a holder says of a VIP. It returns how many
// connections it left out, because there is no room or no phone can have such a
// connection.
func (b *Book) Hear(vip netip.Addr, connections []Connection, now time.Duration) (refused int) {
	p := b.pages[vip]
	if p == nil {
		p = &page{entries: map[key]entry{}}
		b.pages[vip] = p
	}
	p.heard = max(p.heard, now)
	if len(p.entries)+len(connections) > Most || b.size+len(connections) > MostOfAll {
		b.makeRoom(now)
	}
	for _, c := range connections {
		k := key{c.Phone, c.Port}
		_, known := p.entries[k]
		if !c.reachable(vip) || !known && (len(p.entries) >= Most || b.size >= MostOfAll) {
			refused++
			continue
		}
		if !known {
			b.size++
		}
		p.entries[k] = entry{c, now}
	}
	return refused
}

// makeRoom removes stale connections and forgotten VIPs, at most once every pruneEvery.
func (b *Book) makeRoom(now time.Duration) {
	if now-b.pruned < pruneEvery {
		return
	}
	b.pruned = now
	for vip, p := range b.pages {
		b.prune(p)
		if now-p.heard > Forgotten {
			b.size -= len(p.entries)
			delete(b.pages, vip)
		}
	}
}

func (b *Book) prune(p *page) {
	before := len(p.entries)
	maps.DeleteFunc(p.entries, func(_ key, e entry) bool { return p.heard-e.heard > Stale })
	b.size -= before - len(p.entries)
}

// Take returns the connections on a VIP and forgets them. The node that takes the VIP
// wakes the phones once; after that its own kernel knows their connections.
func (b *Book) Take(vip netip.Addr) (connections []Connection) {
	p := b.pages[vip]
	if p == nil {
		return nil
	}
	b.prune(p)
	b.size -= len(p.entries)
	delete(b.pages, vip)
	for _, e := range p.entries {
		connections = append(connections, e.Connection)
	}
	return connections
}
