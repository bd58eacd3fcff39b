package fence

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/platform"
)

// One agent after another takes over under traffic. No packet to the held VIP is lost,
// and none from a VIP that is not held gets out.
func TestReplaceUnderTraffic(t *testing.T) {
	hooked(t, func(t *testing.T, s *site) {
		const agents, least = 30, 20_000
		hour := int64(time.Hour)
		f := s.open(platform.BootNow() + hour)
		held := s.listen(vip)
		tap := 0
		s.far.Do(func() { tap = rawSocket(t, s.far.Link("eth0").Attrs().Index, unix.ETH_P_IP) })
		leak := rawSocket(t, s.index("eth0"), 0)
		var sender net.Conn
		s.far.Do(func() {
			var err error
			sender, err = net.Dial("udp", netip.AddrPortFrom(vip, heldPort).String())
			must(t, err)
		})
		defer sender.Close()

		var sent, leaks atomic.Uint64
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			payload := make([]byte, 8)
			frame := etherFrame(kindIPv4, ipv4Packet(vip2, router, 20))
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A window, so that a slow receiver loses nothing.
				if sent.Load() < held.received.Load()+100 {
					binary.BigEndian.PutUint64(payload, sent.Load())
					if _, err := sender.Write(payload); err != nil {
						t.Error(err)
						return
					}
					sent.Add(1)
				}
				_, _ = unix.Write(leak, frame) // must be refused
				leaks.Add(1)
			}
		}()
		replaced := 0
		for started := time.Now(); replaced < agents || sent.Load() < least; {
			next, err := Open(s.options(platform.BootNow() + hour))
			must(t, err)
			must(t, f.Close(false))
			f = next
			replaced++
			if time.Since(started) > 60*time.Second {
				t.Fatalf("after %d agents only %d packets came through", replaced, sent.Load())
			}
		}
		close(stop)
		<-done
		for end := time.Now().Add(patience); held.received.Load() < sent.Load() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		t.Logf("%d agents one after another: %d packets to the VIP held, %d lost; %d tried from the other, none may pass",
			replaced, sent.Load(), sent.Load()-held.received.Load(), leaks.Load())
		if sent.Load() != held.received.Load() {
			t.Errorf("%d packets lost", sent.Load()-held.received.Load())
		}
		if n := s.countFrom(tap, vip2); n != 0 {
			t.Errorf("%d packets from a VIP that is not held got out", n)
		}
		s.wantAttached("eth0", s.ours()...)
		must(t, f.Close(true))
	})
}

const heldPort = 5060

// sink counts what it receives.
type sink struct{ received atomic.Uint64 }

func (s *site) listen(ip netip.Addr) *sink {
	s.t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, heldPort)))
	must(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	k := &sink{}
	go func() {
		for buffer := make([]byte, 64); ; k.received.Add(1) {
			if _, err := conn.Read(buffer); err != nil {
				return
			}
		}
	}()
	return k
}

// countFrom counts the frames with this source in tap's queue. The queue holds some
// hundred frames, far more than one replacement could leak.
func (s *site) countFrom(tap int, ip netip.Addr) (n int) {
	s.t.Helper()
	buffer := make([]byte, 2048)
	for {
		length, _, err := unix.Recvfrom(tap, buffer, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return n
		}
		must(s.t, err)
		if length >= 34 && [4]byte(buffer[26:30]) == ip.As4() {
			n++
		}
	}
}

// foreign attaches somebody else's program at anchor, in both directions.
func (s *site) foreign(name string, anchor link.Anchor) *ebpf.Program {
	s.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "MIT", Instructions: emptyProgram()})
	must(s.t, err)
	s.t.Cleanup(func() { p.Close() })
	for _, d := range []direction{ingress, egress} {
		must(s.t, link.RawAttachProgram(link.RawAttachProgramOptions{Target: s.index("eth0"), Program: p, Attach: d.tcx(), Anchor: anchor}))
	}
	return p
}

// Programs of others stay where they are, with ours in front of them, whatever comes and
// goes. That includes programs attached between two agents.
func TestForeignProgramsStay(t *testing.T) {
	s := newSite(t)
	s.foreign("first", link.Tail())
	s.foreign("second", link.Tail())
	f := s.open(0)
	want := func(in ...string) {
		t.Helper()
		var all []string
		for _, d := range []direction{ingress, egress} {
			for _, name := range in {
				if name == "ours" {
					name = [...]string{"sipalive_in", "sipalive_out"}[d]
				}
				all = append(all, fmt.Sprintf("%s %s", d, name))
			}
		}
		s.wantAttached("eth0", all...)
	}
	want("ours", "first", "second")
	s.foreign("head", link.Head())
	s.foreign("tail", link.Tail())
	want("head", "ours", "first", "second", "tail")
	next := s.open(0)
	must(t, f.Close(false))
	want("ours", "head", "first", "second", "tail")
	must(t, next.Sync())
	want("ours", "head", "first", "second", "tail")
	must(t, next.Close(true))
	want("head", "first", "second", "tail")
}

func TestForeignFiltersStay(t *testing.T) {
	s := newSite(t)
	s.clsact = true
	must(t, s.ns.Netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: s.index("eth0"), Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	s.counter("eth0")
	f := s.open(0)
	s.wantAttached("eth0", "ingress filter sipalive_ingress", "ingress filter foreign", "egress filter sipalive_egress")
	must(t, f.Close(true))
	s.wantAttached("eth0", "ingress filter foreign")
}

// A clsact that was there before ours stays, empty as it was.
func TestForeignClsactStays(t *testing.T) {
	s := newSite(t)
	s.clsact = true
	must(t, clsact{links: s.ns.Netlink, made: map[int]bool{}}.makeQdisc(s.index("eth0")))
	must(t, s.open(0).Close(true))
	qdiscs, err := s.ns.Netlink.QdiscList(s.ns.Link("eth0"))
	must(t, err)
	if !slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" }) {
		t.Error("the clsact is gone")
	}
}

// A qdisc ingress is not a clsact: both of our filters would be in its only list. It
// stays with its filters, and the error names the device that is not fenced.
func TestForeignIngressQdisc(t *testing.T) {
	s := newSite(t)
	s.clsact = true
	theirs := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: s.index("eth0"), Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	must(t, s.ns.Netlink.QdiscAdd(theirs))
	s.counter("eth0")
	before := s.attached("eth0")
	const taken = "attach to eth0: add clsact: its place is taken by qdisc ingress, which has no egress (put clsact there instead, which runs the same filters, or use Linux 6.6 or later)"
	o := s.options(0)
	if f, err := Open(o); err == nil || err.Error() != `fence = "bpf": `+taken {
		t.Errorf("fence = bpf: %v, want %s", err, taken)
		if err == nil {
			_ = f.Close(false)
		}
	}
	o.Mode = Auto
	for _, beside := range []bool{false, true} { // another device that can be fenced
		if beside {
			s.ns.Wire("eth1", s.far, "eth1")
		}
		f, err := Open(o)
		must(t, err)
		want := meansLifetime + "; no bpf: " + taken
		if beside {
			want = meansBPF + " (clsact on eth1); not everywhere: " + taken
		}
		if !f.Weak() || f.Explain() != want {
			t.Errorf("weak %t: %s\nwant %s", f.Weak(), f.Explain(), want)
		}
		if now := s.attached("eth0"); !slices.Equal(now, before) {
			t.Errorf("attached to eth0: %q, want what was there: %q", now, before)
		}
		if beside { // the administrator does what the error says
			must(t, s.ns.Netlink.QdiscDel(theirs))
			must(t, f.Sync())
			s.wantAttached("eth0", s.ours()...)
			if f.Weak() {
				t.Error(f.Explain())
			}
		}
		must(t, f.Close(true))
	}
}

// An agent with another configuration, or on another kernel, finds what the last one
// left, whichever hook that used.
func TestChangeOfHookAndMode(t *testing.T) {
	s := newSite(t)
	asks := s.asker()
	hour := platform.BootNow() + int64(time.Hour)
	for _, clsact := range []bool{false, true, false} {
		s.clsact = clsact
		f := s.open(hour)
		s.wantAttached("eth0", s.ours()...)
		asks.wants(vip, true, "held")
		asks.wants(vip2, false, "not held")
		must(t, f.Close(false))
	}
	for _, mode := range []Mode{Lifetime, None} {
		s.open(hour)
		o := s.options(0)
		o.Mode = mode
		f, err := Open(o)
		must(t, err)
		if f.Kind() != string(mode) || f.Lifetimes() != (mode == Lifetime) {
			t.Errorf("kind %s, lifetimes %t", f.Kind(), f.Lifetimes())
		}
		must(t, f.Set(vip, 0))
		must(t, f.Cover("eth0"))
		must(t, f.Sync())
		asks.wants(vip2, true, "fence "+string(mode))
		must(t, f.Close(true))
		s.nothingLeft()
	}
}

// emptyProgram lets every packet pass to the next program.
func emptyProgram() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, verdictNext), asm.Return()}
}
