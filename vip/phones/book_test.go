package phones

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	vip1 = netip.MustParseAddr("192.0.2.101")
	vip2 = netip.MustParseAddr("192.0.2.102")
)

func phone(i int) Connection {
	return Connection{Phone: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 5060), Port: 5060, Seq: uint32(i), Ack: 1}
}

func phones(from, to int) (all []Connection) {
	for i := from; i < to; i++ {
		all = append(all, phone(i))
	}
	return all
}

func (b *Book) expect(t *testing.T, vip netip.Addr, want []Connection) {
	t.Helper()
	byPhone := cmpopts.SortSlices(func(x, y Connection) bool { return x.Phone.Compare(y.Phone) < 0 })
	if diff := cmp.Diff(want, b.Take(vip), byPhone, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("%s (-want +got):\n%s", vip, diff)
	}
}

func TestBookKeepsTheNewestOfEachVIP(t *testing.T) {
	b := NewBook()
	b.Hear(vip1, phones(0, 3), 0)
	b.Hear(vip2, phones(5, 6), 0)
	newer := phone(1)
	newer.Seq = 99
	b.Hear(vip1, []Connection{newer}, time.Second)
	b.expect(t, vip1, []Connection{phone(0), newer, phone(2)})
	b.expect(t, vip1, nil) // taken once
	b.expect(t, vip2, phones(5, 6))
	if b.size != 0 {
		t.Errorf("%d connections counted in an empty book", b.size)
	}
}

// If the whole holder is silent, the book forgets nothing; if it no longer names a phone,
// the book forgets that phone.
func TestBookAgesAgainstTheHolder(t *testing.T) {
	b := NewBook()
	b.Hear(vip1, phones(0, 2), 0)
	b.Hear(vip1, phones(1, 2), Stale)
	b.Hear(vip2, phones(7, 9), time.Hour)
	b.expect(t, vip1, phones(0, 2))
	b.Hear(vip1, phones(0, 2), 2*time.Hour)
	b.Hear(vip1, phones(1, 2), 2*time.Hour+Stale)
	b.Hear(vip1, nil, 2*time.Hour+Stale+1)
	b.expect(t, vip1, phones(1, 2))
}

// A connection that no phone can have is left out and counted. So a node that lies cannot
// have a keepalive sent to a group, or with the wrong family's header.
func TestBookRefusesWhatIsNoPhone(t *testing.T) {
	for _, c := range []struct {
		vip   netip.Addr
		phone string
		port  uint16
	}{
		{vip1, "198.51.100.7:0", 5060},
		{vip1, "198.51.100.7:5060", 0},
		{vip1, "0.0.0.0:5060", 5060},
		{vip1, "224.0.0.1:5060", 5060},
		{vip1, "169.254.1.1:5060", 5060},
		{vip1, "[2001:db8::7]:5060", 5060},
		{vip1, "[::ffff:198.51.100.7]:5060", 5060},
		{netip.MustParseAddr("2001:db8::101"), "[::ffff:198.51.100.7]:5060", 5060},
		{netip.MustParseAddr("2001:db8::101"), "198.51.100.7:5060", 5060},
		{netip.MustParseAddr("2001:db8::101"), "[ff02::1]:5060", 5060},
		{netip.MustParseAddr("2001:db8::101"), "[fe80::7]:5060", 5060},
	} {
		b := NewBook()
		no := Connection{Phone: netip.MustParseAddrPort(c.phone), Port: c.port}
		if n := b.Hear(c.vip, []Connection{no, {}, phone(1)}, 0); c.vip.Is4() && n != 2 || c.vip.Is6() && n != 3 {
			t.Errorf("%s at %s: %d refused", c.phone, c.vip, n)
		}
		if c.vip.Is4() {
			b.expect(t, c.vip, phones(1, 2))
		} else {
			b.expect(t, c.vip, nil)
		}
	}
}

func TestBookIsBounded(t *testing.T) {
	b := NewBook()
	if n := b.Hear(vip1, phones(0, Most+10), 0); n != 10 {
		t.Errorf("%d refused, want 10", n)
	}
	if n := len(b.pages[vip1].entries); n != Most {
		t.Errorf("%d connections of one VIP kept, bound %d", n, Most)
	}
	// New connections take the room of the stale ones.
	b.Hear(vip1, phones(Most+10, Most+20), Stale+1)
	b.expect(t, vip1, phones(Most+10, Most+20))
	for i := range MostOfAll/Most + 2 {
		b.Hear(netip.MustParseAddr(fmt.Sprint("192.0.2.", i)), phones(0, Most), 0)
	}
	if b.size != MostOfAll {
		t.Errorf("%d connections of all kept, bound %d", b.size, MostOfAll)
	}
}

// A VIP that nobody takes any more, because no configuration has it, is forgotten when
// the book needs room.
func TestBookForgetsVIPsOfNobody(t *testing.T) {
	b := NewBook()
	for i := range byte(MostOfAll / Most) {
		b.Hear(netip.AddrFrom4([4]byte{192, 0, 2, 200 + i}), phones(0, Most), 0)
	}
	if refused := b.Hear(vip1, phones(0, 2), Forgotten); refused != 2 {
		t.Errorf("%d refused by a full book", refused)
	}
	if refused := b.Hear(vip1, phones(0, 2), Forgotten+2*pruneEvery); refused != 0 {
		t.Errorf("%d refused once the others were forgotten", refused)
	}
	b.expect(t, vip1, phones(0, 2))
	if b.size != 0 {
		t.Errorf("%d connections counted in an empty book", b.size)
	}
}
