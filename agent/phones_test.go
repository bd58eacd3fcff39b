package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"sipalive/elect"
	"sipalive/platform/nstest"
	"sipalive/vip/phones"
)

var (
	vip1Address = netip.MustParseAddr(string(vip1))
	aPhone      = netip.MustParseAddrPort("198.51.100.7:40000")
)

func newPhones(t *testing.T) (*recording, *phoneBook) {
	t.Helper()
	r := newRecording(t)
	r.a.Ends = NewLeaseEnds(func() elect.Instant { return r.now })
	r.a.Ends.set(vip1Address, r.at(time.Hour))
	r.a.events = make(chan elect.Event, 16)
	return r, newPhoneBook(r.a)
}

// TestPhonesHeard: what another node tells is accepted for a VIP of this configuration
// and for phones that can exist. Everything else is counted, and nothing waits for it.
func TestPhonesHeard(t *testing.T) {
	_, b := newPhones(t)
	one := []elect.Connection{{Phone: aPhone, Port: 5060, Seq: 1, Ack: 2}}
	for _, c := range []struct {
		name    string
		m       elect.Connections
		refused uint64
	}{
		{"an unknown VIP", elect.Connections{VIP: "192.0.2.99", Items: one}, 1},
		{"a role", elect.Connections{VIP: elect.RoleID("cdr"), Items: one}, 1},
		{"no phone", elect.Connections{VIP: vip1, Items: []elect.Connection{{Phone: netip.MustParseAddrPort("224.0.0.1:5060"), Port: 5060}, {}}}, 2},
		{"a phone", elect.Connections{VIP: vip1, Items: one}, 0},
	} {
		before := b.refused.Load()
		b.hear(c.m)
		if got := b.refused.Load() - before; got != c.refused {
			t.Errorf("%s: %d refused, want %d", c.name, got, c.refused)
		}
	}
	if got := b.told(vip1Address); len(got) != 1 || got[0].Phone != aPhone {
		t.Errorf("in the book: %v", got)
	}
	before := b.refused.Load()
	for range cap(b.heard) + 3 { // with nobody to write them into the book
		b.take(elect.Connections{VIP: vip1, Items: one})
	}
	if got := b.refused.Load() - before; got != 3 {
		t.Errorf("%d refused by a full queue, want 3", got)
	}
}

// connected connects phones to vip1, in a namespace of the test's own.
func connected(t *testing.T, n int) (phoneEnds []net.Conn) {
	t.Helper()
	ns := nstest.Enter(t)
	ns.Add("lo", vip1Address.String()+"/32")
	ns.Add("lo", aPhone.Addr().String()+"/32")
	l, err := net.Listen("tcp4", netip.AddrPortFrom(vip1Address, 5060).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for i := range n {
		from := netip.AddrPortFrom(aPhone.Addr(), aPhone.Port()+uint16(i))
		phone, err := (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}).Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { phone.Close() })
		pbx, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pbx.Close() })
		phoneEnds = append(phoneEnds, phone)
	}
	return phoneEnds
}

// TestPhonesTold: every connection is told, in messages that fit into a packet. If the
// numbers cannot be had, connections are told without. A VIP without phones is told too;
// a VIP that is not held here is not.
func TestPhonesTold(t *testing.T) {
	r, b := newPhones(t)
	const n = elect.MaxConnections + 6
	connected(t, n)
	if held := b.held(); len(held) != 1 || held[0] != vip1Address {
		t.Errorf("held: %v", held)
	}
	tell := func(vip netip.Addr) (sizes []int) {
		if err := b.tell(t.Context(), nil, []netip.Addr{vip}, false); err != nil {
			t.Fatal(err)
		}
		for len(r.a.events) > 0 {
			sizes = append(sizes, len((<-r.a.events).(elect.Share).Items))
		}
		return sizes
	}
	if got := tell(vip1Address); len(got) != 2 || got[0] != elect.MaxConnections || got[1] != 6 {
		t.Errorf("told of %v connections in each message", got)
	}
	if got := tell(netip.MustParseAddr("192.0.2.102")); len(got) != 1 || got[0] != 0 {
		t.Errorf("told of %v connections on a VIP that has none", got)
	}
	r.a.Ends.set(vip1Address, r.now)
	if held := b.held(); len(held) != 0 {
		t.Errorf("held after the lease's end: %v", held)
	}
}

// TestPhonesWokenAfterTheFlush: phones are woken for a VIP that came, not for one that
// left.
func TestPhonesWokenAfterTheFlush(t *testing.T) {
	r, b := newPhones(t)
	for _, c := range []struct {
		until elect.Instant
		wakes int
	}{{r.now, 0}, {r.at(time.Second), 1}} {
		r.a.Ends.set(vip1Address, c.until)
		b.flushed(vip1Address)
		if len(b.wakes) != c.wakes {
			t.Errorf("%v before the lease's end: %d wakes, want %d", time.Duration(c.until-r.now), len(b.wakes), c.wakes)
		}
	}
}

// TestPhonesWoken: a phone is woken while the VIP is held here, even if an earlier hold
// left an end of its connection here too. It is not woken without a lease.
func TestPhonesWoken(t *testing.T) {
	r, b := newPhones(t)
	phone := connected(t, 1)[0]
	told := elect.Connections{VIP: vip1, Items: []elect.Connection{{Phone: aPhone, Port: 5060, Seq: 1, Ack: 1}}}
	wake := func(until elect.Instant) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r.a.Now = func() elect.Instant { // also called before each round: stop after the first that wakes
			if b.woken.Load() > 0 {
				cancel()
			}
			return r.now
		}
		b.hear(told)
		r.a.Ends.set(vip1Address, until)
		b.wake(ctx, vip1Address)
	}
	wake(r.now)
	if n, kept := b.woken.Load(), b.told(vip1Address); n != 0 || len(kept) != 1 {
		t.Errorf("without a lease %d woken, %d kept for when there is one, want 0 and 1", n, len(kept))
	}
	wake(r.at(time.Hour))
	if n := b.woken.Load(); n != 1 || b.errors.Load() != 0 {
		t.Errorf("%d woken, %d errors, want 1 and 0", n, b.errors.Load())
	}
	_ = phone.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := phone.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the phone read %v, want a reset", err)
	}
	if r.log.Len() > 0 {
		t.Errorf("logged:\n%s", r.log)
	}
}

// TestPhonesWokenOneByOne: a thousand phones are woken per second, so that they do not
// all come at once; for two VIPs together no more. None is woken after the lease's end.
func TestPhonesWokenOneByOne(t *testing.T) {
	r, b := newPhones(t)
	all := make([]phones.Connection, 10*wakesAtOnce)
	began := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { b.send(t.Context(), vip1Address, all, func(phones.Connection) error { return nil }) })
	}
	wg.Wait()
	if took := time.Since(began); b.woken.Load() != uint64(2*len(all)) || took < 20*wakePause {
		t.Errorf("%d phones woken within %v, want %d in no less than %v", b.woken.Load(), took, 2*len(all), 20*wakePause)
	}
	b.send(t.Context(), vip1Address, all, func(phones.Connection) error {
		r.a.Ends.set(vip1Address, r.now)
		return errors.New("refused")
	})
	if n := b.errors.Load(); n != wakesAtOnce {
		t.Errorf("%d tried after the lease's end", n-wakesAtOnce)
	}
}

// TestPhonesListedOnce: the last holder's last message names all phones, with newer
// numbers, and leaves room for those that were not told before.
func TestPhonesListedOnce(t *testing.T) {
	said := func(from, to int, seq uint32) (all []phones.Connection) {
		for i := range to - from {
			all = append(all, phones.Connection{Phone: netip.AddrPortFrom(aPhone.Addr(), uint16(from+i)), Port: 5060, Seq: seq})
		}
		return all
	}
	l := newList()
	l.add(said(0, 5000, 1))
	if added := l.add(said(0, 5100, 2)); len(added) != 100 || added[0].Phone.Port() != 5000 {
		t.Errorf("%d added", len(added))
	}
	if len(l.connections) != 5100 || l.connections[0].Seq != 2 {
		t.Errorf("%d listed, the first %+v", len(l.connections), l.connections[0])
	}
	if added := l.add(said(6000, 20000, 1)); len(added) != phones.Most-5100 {
		t.Errorf("%d added past the bound", len(added))
	}
}
