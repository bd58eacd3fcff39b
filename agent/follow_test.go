package agent

import (
	"context"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/elect"
	"sipalive/platform/nstest"
	"sipalive/vip"
)

// holding is a binder that manages vip1, on a machine with eth0 and a neighbour.
type holding struct {
	t  *testing.T
	ns *nstest.Namespace
	r  *recording
	b  *binder
}

func newHolding(t *testing.T) *holding {
	t.Helper()
	ns := nstest.Enter(t)
	ns.Wire("eth0", ns.Beside(), "eth0")
	h := &holding{t: t, ns: ns}
	h.r, h.b = bindingHere(t)
	managed := []vip.Address{h.b.applied[vip1].address}
	h.must(h.r.a.Table.Manage(managed))
	var err error
	h.r.a.Conntrack, err = vip.Open(managed)
	h.must(err)
	t.Cleanup(h.r.a.Conntrack.Close)
	return h
}

func (h *holding) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// want has the binder hold vip1, or let it go.
func (h *holding) want(hold bool) {
	h.t.Helper()
	vip := elect.Desired{VIP: vip1}
	if hold {
		vip = elect.Desired{VIP: vip1, Hold: true, Epoch: 7, Until: h.r.at(time.Hour)}
	}
	h.b.want([]elect.Desired{vip, {VIP: elect.RoleID("cdr")}}, true)
	h.b.apply(false)
	if got := <-h.r.a.events; got != (elect.Bound{VIP: vip1, On: hold}) {
		h.t.Fatalf("told %+v", got)
	}
}

func (h *holding) sent() uint64 { return h.r.a.Announcer.Stats().Sent }

// TestAnnouncedAgain: neighbours and switches are told again, with the whole burst, after
// an address was put back and after a link was down. A change of another machine's
// address causes nothing.
func TestAnnouncedAgain(t *testing.T) {
	t.Parallel()
	const burst = 2 * (1 + 4) // frames of a takeover and its burst
	for name, change := range map[string]func(ns *nstest.Namespace){
		"address removed": func(ns *nstest.Namespace) { ns.Delete("eth0", "192.0.2.101/32") },
		"link down":       func(ns *nstest.Namespace) { ns.Down("eth0"); ns.Up("eth0"); ns.Ready("eth0") },
		"others' address": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHolding(t)
			ctx, cancel := context.WithCancel(context.Background())
			watched := make(chan error, 1)
			go func() {
				runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
				h.ns.Do(func() { watched <- h.b.watch(ctx) })
			}()
			defer func() { cancel(); h.must(<-watched) }()
			h.want(true)
			h.watching()
			if change == nil {
				h.ns.Add("eth0", "192.0.2.200/32")
				h.await("the burst to be over", func() bool { return h.sent() >= burst })
				if len(h.b.repair) > 0 {
					t.Error("another machine's address has the binder look")
				}
				h.b.putRight()
				if n := h.sent(); n != burst {
					t.Errorf("%d frames for nothing", n-burst)
				}
				return
			}
			change(h.ns)
			h.await("the binder to be woken", func() bool { return len(h.b.repair) > 0 && h.b.unheard.Load() })
			<-h.b.repair
			h.b.putRight()
			if !slices.Contains(h.ns.Addresses(), "eth0 192.0.2.101/32") {
				t.Fatalf("bound are %q", h.ns.Addresses())
			}
			h.await("a second burst", func() bool { return h.sent() > burst })
		})
	}
}

// watching waits until the address watch hears changes, and then clears what the binder
// was told.
func (h *holding) watching() {
	h.t.Helper()
	h.await("the address watch", func() bool {
		h.ns.Bridge("probe")
		h.ns.Remove("probe")
		return len(h.b.repair) > 0
	})
	for quiet := 0; quiet < 100; quiet++ { // ms without a late echo of the change
		if time.Sleep(time.Millisecond); len(h.b.repair) > 0 {
			<-h.b.repair
			quiet = 0
		}
	}
	h.b.unheard.Store(false)
}

func (h *holding) await(what string, good func() bool) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); !good(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain for %s: %d frames sent", what, h.sent())
		}
	}
}

// TestTrackedConnectionsForgotten: the kernel's tracked connections of a VIP are removed
// on the new holder when the VIP comes, and on the old one when it leaves. Others stay.
func TestTrackedConnectionsForgotten(t *testing.T) {
	h := newHolding(t)
	foreign := "198.51.100.7>192.0.2.13"
	for _, hold := range []bool{true, false} {
		h.track("198.51.100.7", "192.0.2.101", 5070)
		h.track("192.0.2.101", "198.51.100.7", 5071)
		if hold {
			h.track("198.51.100.7", "192.0.2.13", 5072)
		}
		if got := h.tracked(); len(got) != 3 {
			t.Fatalf("tracked are %q", got)
		}
		h.want(hold)
		if len(h.b.flush) == 0 {
			t.Fatalf("hold %t: nothing is to be forgotten", hold)
		}
		<-h.b.flush
		h.b.flushStale()
		if got := h.tracked(); !slices.Equal(got, []string{foreign}) {
			t.Errorf("hold %t: tracked still are %q, want %s alone", hold, got, foreign)
		}
	}
}

// track makes the kernel track a UDP connection.
func (h *holding) track(src, dst string, port uint16) {
	h.t.Helper()
	from, to := net.ParseIP(src).To4(), net.ParseIP(dst).To4()
	h.must(h.ns.Netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET,
		Forward:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: from, DstIP: to, SrcPort: port, DstPort: 5060},
		Reverse:    netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: to, DstIP: from, SrcPort: 5060, DstPort: port},
		TimeOut:    600,
	}))
}

func (h *holding) tracked() (all []string) {
	h.t.Helper()
	flows, err := h.ns.Netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	h.must(err)
	for _, f := range flows {
		all = append(all, f.Forward.SrcIP.String()+">"+f.Forward.DstIP.String())
	}
	return all
}
