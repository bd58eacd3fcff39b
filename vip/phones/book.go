package phones

import (
	"maps"
	"net/netip"
	"time"
)

// Stale is for how long a connection stays in the book of which the holder's later
// words say nothing: a few of its rounds, since each may get lost.
const Stale = 7 * time.Second

// Forgotten is how long nothing has to be said of a VIP until what was said may go for
// want of room: nobody takes it any more.
const Forgotten = time.Hour

// Book keeps what other nodes say of the connections on the VIPs they hold. It has
// no clock: each call says when, on one that only goes forward. Not safe for use by
// several goroutines.
type Book struct {
	pages  map[netip.Addr]*page
	size   int
	pruned time.Duration // when it was last looked through for want of room
}

// pruneEvery: a full book is not looked through for each packet.
const pruneEvery = time.Second

// page is of one VIP. What a holder says no more of ages against its last word, not
// against the clock: a holder that is dead for a minute has phones that wait.
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

// NewBook makes an empty one.
func NewBook() *Book { return &Book{pages: map[netip.Addr]*page{}} }

// Hear takes a part, or all, of what a holder says of a VIP, and gives how many it
// left out: there is no room for them, or no phone can have such a connection.
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

// makeRoom forgets what is stale.
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

// Take gives the connections on a VIP and forgets them: whoever takes the VIP over
// wakes them once, and what they do then its own kernel knows.
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
