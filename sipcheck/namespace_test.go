package sipcheck

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNamespace runs f on a separate thread in a new network namespace with lo up. The
// namespace has no name: it ends with the thread and its sockets.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		defer ns.Close()
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Errorf("set lo up: %v", err)
			return
		}
		f()
	}()
	<-done
}

// stage steps a prober on the namespace's thread until ok returns true or patience is
// over. A goroutine of the prober's own would open its sockets outside the namespace.
func stage(t *testing.T, p *Prober, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		p.step(p.opts.Now())
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("never saw %s: %+v", what, p.Stats())
			runtime.Goexit()
		}
		p.wait(p.due())
		if ok() { // otherwise the next wait could take an hour
			return
		}
	}
}

func TestLocalAddressComesAndGoes(t *testing.T) {
	inNamespace(t, func() {
		s := serve(t, netip.MustParseAddrPort("127.0.0.1:5060"), always("200 OK"))
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 11), Mask: net.CIDRMask(32, 32)}}
		target := Target{Node: "pbx1", Name: "main", Address: s.addr, Interval: 10 * time.Millisecond, Timeout: 40 * time.Millisecond}
		p := NewProber(target, Options{Local: netip.MustParseAddr("192.0.2.11")})
		defer p.link.close()

		start := time.Now()
		stage(t, p, "silence without the address", func() bool { return p.judge.verdict == Silent })
		if st := p.Stats(); st.Sent != 0 || !errors.Is(st.LastErr, unix.EADDRNOTAVAIL) {
			t.Errorf("without the address: %+v", st)
		}
		for range 3 { // up, then down again
			if err := netlink.AddrAdd(lo, own); err != nil {
				t.Error(err)
				return
			}
			stage(t, p, "up with the address", func() bool { return p.judge.verdict == Up })
			if err := netlink.AddrDel(lo, own); err != nil {
				t.Error(err)
				return
			}
			stage(t, p, "silence once the address is gone", func() bool { return p.judge.verdict == Silent })
		}
		most := 3 * uint64(time.Since(start)/(target.Timeout/2)+10)
		if st := p.Stats(); st.SendErrors > most || st.Refused != 0 {
			t.Errorf("want at most %d send errors and no refusal: %+v", most, st)
		}
	})
}

func TestNoRouteIsSilence(t *testing.T) {
	inNamespace(t, func() {
		p := NewProber(silent(netip.MustParseAddrPort("192.0.2.99:5060")), Options{})
		defer p.link.close()
		stage(t, p, "silence", func() bool { return p.judge.verdict == Silent })
		if st := p.Stats(); !errors.Is(st.LastErr, unix.ENETUNREACH) || st.SendErrors == 0 || st.SendErrors > 6 {
			t.Errorf("%+v", st)
		}
	})
}

// TestFirewallIsSilence: if a firewall drops what we send, the kernel returns EPERM.
func TestFirewallIsSilence(t *testing.T) {
	inNamespace(t, func() {
		s := serve(t, netip.MustParseAddrPort("127.0.0.1:5060"), always("200 OK"))
		p := NewProber(Target{Node: "pbx1", Name: "main", Address: s.addr,
			Interval: 10 * time.Millisecond, Timeout: 40 * time.Millisecond}, Options{})
		defer p.link.close()
		stage(t, p, "up", func() bool { return p.judge.verdict == Up })
		nft, err := nftables.New()
		if err != nil {
			t.Error(err)
			return
		}
		table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "sipcheck"})
		chain := nft.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
		nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
		if err := nft.Flush(); err != nil {
			t.Error(err)
			return
		}
		stage(t, p, "silence behind the firewall", func() bool { return p.judge.verdict == Silent })
		if st := p.Stats(); !errors.Is(st.LastErr, unix.EPERM) || st.Refused != 0 {
			t.Errorf("%+v", st)
		}
		nft.DelTable(table)
		if err := nft.Flush(); err != nil {
			t.Error(err)
			return
		}
		stage(t, p, "up again", func() bool { return p.judge.verdict == Up })
	})
}

// TestNeverConnectedToItself: the only free port is the target's, so the kernel chooses
// it.
func TestNeverConnectedToItself(t *testing.T) {
	inNamespace(t, func() {
		// /proc/sys/net belongs to the namespace of the thread that opens it.
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("5070 5070"), 0o644); err != nil {
			t.Error(err)
			return
		}
		at := netip.MustParseAddrPort("127.0.0.1:5070")
		s, err := openSocket(at.Addr(), at)
		if err == nil {
			s.Close()
			t.Errorf("connected %v to itself", at)
		} else if !strings.Contains(err.Error(), "drew that very port") {
			t.Error(err)
		}
	})
}
