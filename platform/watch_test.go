package platform

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sipalive/platform/nstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// await returns the first change that want accepts.
func await(t *testing.T, changes <-chan AddressChange, what string, want func(AddressChange) bool) AddressChange {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case c, open := <-changes:
			if !open {
				t.Fatalf("closed while waiting for %s", what)
			}
			if want(c) {
				return c
			}
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// watching starts a watch that ends with the test.
func watching(t *testing.T, buffer int) <-chan AddressChange {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes, err := WatchAddresses(ctx, buffer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		for range changes { // the channel must be closed, or the test hangs
		}
	})
	if first := <-changes; first != (AddressChange{Resync: true}) {
		t.Fatalf("first change is %+v", first)
	}
	return changes
}

func TestWatchAddresses(t *testing.T) {
	ns := nstest.Enter(t)
	far := ns.Beside()
	ns.Wire("eth0", far, "eth0")
	changes := watching(t, 16)
	index := ns.Link("eth0").Attrs().Index
	for _, cidr := range []string{"192.0.2.101/32", "2001:db8::101/128"} {
		want := AddressChange{Interface: "eth0", Index: index, Address: netip.MustParsePrefix(cidr), Added: true}
		same := func(c AddressChange) bool { return c == want }
		ns.Add("eth0", cidr)
		await(t, changes, "address added", same)
		ns.Delete("eth0", cidr)
		want.Added = false
		await(t, changes, "address deleted", same)
	}
}

func TestWatchLinks(t *testing.T) {
	ns := nstest.Enter(t)
	far := ns.Beside()
	ns.Wire("eth0", far, "eth0")
	changes := watching(t, 16)
	link := func(what string, want func(LinkChange) bool) {
		t.Helper()
		await(t, changes, what, func(c AddressChange) bool {
			return c.Link != nil && c.Interface == "eth0" && want(*c.Link)
		})
	}
	far.Down("eth0")
	link("pulled cable", func(l LinkChange) bool { return l.Up && !l.Carrier })
	far.Up("eth0")
	link("cable back", func(l LinkChange) bool { return l.Up && l.Carrier })
	ns.Down("eth0")
	link("interface down", func(l LinkChange) bool { return !l.Up && !l.Removed })
	ns.Up("eth0")
	link("interface up", func(l LinkChange) bool { return l.Up })
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	if err := ns.Netlink.LinkSetHardwareAddr(ns.Link("eth0"), mac[:]); err != nil {
		t.Fatal(err)
	}
	link("new MAC", func(l LinkChange) bool { return l.HardwareAddr == mac })
	ns.Remove("eth0")
	link("removed interface", func(l LinkChange) bool { return l.Removed })

	// An interface that is made again has another index, and its addresses have the right
	// name.
	ns.Wire("eth0", far, "eth0")
	ns.Add("eth0", "192.0.2.101/32")
	await(t, changes, "address on the new interface", func(c AddressChange) bool {
		return c.Interface == "eth0" && c.Index == ns.Link("eth0").Attrs().Index && c.Address.IsValid()
	})
}

// TestWatchLinkLeavesBridge: the kernel reports a port that leaves its bridge as a
// deleted link.
func TestWatchLinkLeavesBridge(t *testing.T) {
	ns := nstest.Enter(t)
	ns.Wire("eth0", ns.Beside(), "eth0")
	if err := ns.Netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
		t.Fatal(err)
	}
	if err := ns.Netlink.LinkSetMaster(ns.Link("eth0"), ns.Link("br0")); err != nil {
		t.Fatal(err)
	}
	changes := watching(t, 16)
	if err := ns.Netlink.LinkSetNoMaster(ns.Link("eth0")); err != nil {
		t.Fatal(err)
	}
	ns.Add("eth0", "192.0.2.101/32")
	await(t, changes, "address after the bridge", func(c AddressChange) bool {
		if c.Link != nil && c.Link.Removed {
			t.Errorf("%s is said to be removed", c.Interface)
		}
		return c.Interface == "eth0" && c.Address.IsValid()
	})
}

// TestWatchOverrun: a reader that sleeps through more than the kernel's buffer holds gets
// a Resync.
func TestWatchOverrun(t *testing.T) {
	ns := nstest.Enter(t)
	ns.Wire("eth0", ns.Beside(), "eth0")
	changes := watching(t, 1)
	for i := range 6000 { // some 200 bytes each, charged as 768 or more
		cidr := fmt.Sprintf("10.%d.%d.1/32", i/250, i%250)
		ns.Add("eth0", cidr)
	}
	c := await(t, changes, "resync", func(c AddressChange) bool { return c.Resync })
	if c.Err != nil {
		t.Errorf("an overrun is no lasting error: %v", c.Err)
	}
	ns.Add("eth0", "192.0.2.101/32")
	await(t, changes, "address after the overrun", func(c AddressChange) bool {
		return c.Interface == "eth0" && c.Address == netip.MustParsePrefix("192.0.2.101/32")
	})
}

// brokenSocket fails every Receive.
type brokenSocket struct{ closed *int }

func (brokenSocket) Send(*nl.NetlinkRequest) error { return nil }
func (brokenSocket) Drain() error                  { return nil }
func (s brokenSocket) Close() error                { *s.closed++; return nil }
func (brokenSocket) Receive() ([]syscall.NetlinkMessage, error) {
	return nil, unix.EIO
}

// talkingSocket returns the end of one answer, and then nothing until it is closed.
type talkingSocket struct {
	heard  chan struct{}
	closed context.Context
	cancel context.CancelFunc
}

func newTalkingSocket() talkingSocket {
	s := talkingSocket{heard: make(chan struct{}, 1)}
	s.closed, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s talkingSocket) Send(*nl.NetlinkRequest) error { s.heard <- struct{}{}; return nil }
func (s talkingSocket) Drain() error                  { return nil }
func (s talkingSocket) Close() error                  { s.cancel(); return nil }
func (s talkingSocket) Receive() ([]syscall.NetlinkMessage, error) {
	select {
	case <-s.heard:
		return []syscall.NetlinkMessage{{Header: syscall.NlMsghdr{Type: unix.NLMSG_DONE}}}, nil
	case <-s.closed.Done():
		return nil, errors.New("closed")
	}
}

// overrunSocket overruns once, and records the calls.
type overrunSocket struct {
	talkingSocket
	calls   *[]string
	overrun *bool
}

func (s overrunSocket) Send(r *nl.NetlinkRequest) error {
	*s.calls = append(*s.calls, "send")
	return s.talkingSocket.Send(r)
}
func (s overrunSocket) Drain() error {
	*s.calls = append(*s.calls, "drain")
	return nil
}
func (s overrunSocket) Receive() ([]syscall.NetlinkMessage, error) {
	if len(s.heard) == 0 && !*s.overrun {
		*s.overrun = true
		return nil, unix.ENOBUFS
	}
	return s.talkingSocket.Receive()
}

// TestWatchEmptiesAFullSocket: a full socket is emptied before any request is sent on it.
func TestWatchEmptiesAFullSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		overrun := false
		changes, err := watchAddresses(t.Context(), 0, func() (netlinkReceiver, error) {
			return overrunSocket{newTalkingSocket(), &calls, &overrun}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if c := <-changes; c != (AddressChange{Resync: true}) {
				t.Errorf("got %+v", c)
			}
		}
		synctest.Wait()
		if want := []string{"send", "drain", "send"}; !slices.Equal(calls, want) {
			t.Errorf("asked of the socket %v, want %v", calls, want)
		}
	})
}

// TestWatchLastingError: a lasting error is reported each time, at growing pauses, and so
// is its end.
func TestWatchLastingError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subscriptions, closed := 0, 0
		changes, err := watchAddresses(t.Context(), 0, func() (netlinkReceiver, error) {
			subscriptions++
			switch {
			case subscriptions < 10:
				return brokenSocket{&closed}, nil
			case subscriptions < 15:
				return nil, unix.EMFILE
			}
			return newTalkingSocket(), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		start, failures := time.Now(), 0
		for c := range changes {
			if !c.Resync {
				t.Fatalf("got %+v", c)
			}
			if c.Err == nil {
				break
			}
			failures++
			if text := c.Err.Error(); !strings.HasPrefix(text, "watch addresses: ") || strings.Contains(text, "\n") {
				t.Errorf("error %q", text)
			}
		}
		// 50 ms, doubling up to 5 s: 6.35 s for seven attempts, then 5 s each.
		if took := time.Since(start); failures != 14 || took != 6350*time.Millisecond+7*5*time.Second {
			t.Errorf("%d failures in %v", failures, took)
		}
		if closed < 9 {
			t.Errorf("%d of 9 broken sockets closed", closed)
		}
	})
}

func TestWatchNeedsASocket(t *testing.T) {
	_, err := watchAddresses(t.Context(), 0, func() (netlinkReceiver, error) { return nil, unix.EMFILE })
	if !errors.Is(err, unix.EMFILE) {
		t.Fatalf("got %v", err)
	}
}
