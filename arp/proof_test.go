package arp

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sipalive/platform"
	"sipalive/platform/stalltest"
)

func bootNow() time.Duration { return time.Duration(platform.BootNow()) }

// run runs a watch until the test ends.
func run(t testing.TB, w *Watch) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// family runs a test for an IPv4 VIP, and for an IPv6 VIP behind a link-local router.
func family(t *testing.T, test func(t *testing.T, s *segment, vip netip.Addr)) {
	t.Parallel()
	for name, vip := range map[string]netip.Addr{"IPv4": vip1, "IPv6": vip6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := join(t)
			s.router.set(func(r *router) { r.table[vip] = otherMAC })
			s.open(Link{VIP: vip, Interface: "eth0"})
			test(t, s, vip)
		})
	}
}

// Whichever form of announcement a router takes, the proof comes soon.
func TestProof(t *testing.T) {
	t.Parallel()
	for name, habits := range map[string]func(*router){
		"takes all":          func(*router) {},
		"ignores requests":   func(r *router) { r.request = false },
		"ignores replies":    func(r *router) { r.reply = false },
		"asked by unicast":   func(r *router) { r.request, r.reply = false, false },
		"one ARP per second": func(r *router) { r.arpEvery = time.Second },
		"speaks with another MAC": func(r *router) { // a redundant pair
			r.speaks = hardwareAddr{2, 0, 0, 0, 0, 2}
		},
	} {
		t.Run(name, func(t *testing.T) {
			family(t, func(t *testing.T, s *segment, vip netip.Addr) {
				s.answers(vip)
				s.router.set(habits)
				s.answersAgain(vip)
				stalled := stalltest.Watch(t)
				at := s.take(vip)
				took := s.proven(vip) - at
				t.Logf("proven after %v", took)
				if took > 2*time.Second+stalled() {
					t.Errorf("proven after %v", took)
				}
				if p := s.state(vip); !p.First || p.Sent < at || p.Sent > p.At {
					t.Errorf("proof %+v of a takeover at %v", p, at)
				}
				if mac := s.router.points(vip); mac != hardwareAddr(s.near.MAC("eth0")) {
					t.Errorf("proven, and the router points to %v", mac)
				}
			})
		})
	}
}

// answersAgain waits for the next answer: the new habits are then in effect.
func (s *segment) answersAgain(vip netip.Addr) {
	s.t.Helper()
	last := s.watch.Gateway(vip).Answered
	s.watch.locked(func(now time.Duration) { s.watch.vips[vip].gw.pingAt = now })
	s.watch.poke()
	s.await("another answer", func() bool { return s.watch.Gateway(vip).Answered > last })
}

// A router that was silent for 10 s proves the VIP within one second of its return.
func TestProofAfterSilence(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.router.set(func(r *router) { r.down, r.request, r.reply = true, false, false })
		at := s.take(vip)
		s.await("10 s of silence", func() bool { return s.state(vip).Unreachable })
		if p := s.state(vip); p.State != RouterUnproven || p.At-at < Patience || !strings.Contains(p.Why, "answers nothing any more") {
			t.Errorf("unreachable %v after the takeover: %+v", p.At-at, p)
		}
		stalled := stalltest.Watch(t)
		back := bootNow()
		s.router.set(func(r *router) { r.down = false })
		took := s.proven(vip) - back
		t.Logf("proven %v after its return", took)
		if took > time.Second+stalled() {
			t.Errorf("proven %v after its return, %v of it stalled", took, stalled())
		}
	})
}

// A router that answers no ping stays unknown.
func TestProofUnknown(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.router.set(func(r *router) { r.pings = false })
		s.known(vip)
		s.take(vip)
		s.await("pings", func() bool { s.router.mu.Lock(); defer s.router.mu.Unlock(); return s.router.pinged >= 15 })
		s.mu.Lock()
		if len(s.proofs) != 0 {
			t.Errorf("told %+v", s.proofs)
		}
		s.mu.Unlock()
		// One answer is enough.
		s.router.set(func(r *router) { r.pings = true })
		s.proven(vip)
	})
}

// If the old holder forwards the answer, that is no proof.
func TestProofThroughTheOldHolder(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.other.Add("eth0", otherAddr.String()+"/24")
	s.other.Sysctl("net/ipv4/ip_forward", "1")
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.answers(vip1)
	s.watch.patience = 2 * time.Second
	s.router.set(func(r *router) {
		r.table[vip1], r.request, r.reply, r.unicast = otherMAC, false, false, false
	})
	s.take(vip1)
	s.await("answers by a detour", func() bool { return s.watch.Stats().Detours >= 3 })
	if p := s.state(vip1); p.State != RouterUnproven {
		t.Errorf("told %+v", p)
	}
	s.await("to be unreachable", func() bool { return s.state(vip1).Unreachable })
	if p := s.state(vip1); p.Why != "gateway 192.0.2.1 sends the VIP's answers to 02:00:00:00:00:12" {
		t.Errorf("told %q", p.Why)
	}
	s.router.set(func(r *router) { r.unicast = true })
	s.proven(vip1)
}

// A router that forgets the VIP, or believes another machine without our hearing of it,
// is noticed and put right.
func TestProofAgain(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.take(vip)
		s.proven(vip)
		s.router.set(func(r *router) { r.table[vip], r.request, r.unicast, r.reply = otherMAC, false, false, false })
		s.await("proof to be lost", func() bool { return s.state(vip).State == RouterUnproven })
		s.router.set(func(r *router) { r.unicast = true })
		s.proven(vip)
		if p := s.state(vip); p.First || !p.Changed {
			t.Errorf("told %+v", p)
		}
		s.watch.LetGo(vip)
		sent := s.watch.Stats().Pings
		s.router.set(func(r *router) { r.pinged = 0 })
		s.answersAgain(vip)
		if now := s.watch.Stats().Pings; now > sent+1 {
			t.Errorf("%d pings after it was let go", now-sent)
		}
	})
}

// Another router takes over the gateway's address, with its own MAC.
func TestGatewayReplaced(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.router.set(func(r *router) {
			r.mac, r.speaks, r.table = alienMAC, alienMAC, map[netip.Addr]hardwareAddr{vip: otherMAC}
		})
		s.take(vip)
		s.proven(vip)
		if mac := s.watch.Gateway(vip).MAC.String(); mac != macText(alienMAC) {
			t.Errorf("gateway at %s", mac)
		}
	})
}

// Each VIP is proven separately: one has its own gateway, which nobody answers for; the
// other must not speak ARP.
func TestGatewayOfItsOwn(t *testing.T) {
	t.Parallel()
	s := join(t)
	far := netip.MustParseAddr("192.0.2.254")
	s.open(Link{VIP: vip1, Interface: "eth0", Gateway: far}, Link{VIP: vip2, Interface: "eth0", Silent: true})
	s.watch.patience = time.Second
	s.answers(vip2)
	s.take(vip1)
	s.router.set(func(r *router) { r.table[vip2] = otherMAC })
	s.watch.Hold(vip2, false)
	s.await("vip2 to be unreachable", func() bool { return s.state(vip2).Unreachable })
	if asked := s.watch.Stats().Asked; asked != 0 {
		t.Errorf("asked %d times in the name of a silent VIP", asked)
	}
	if g := s.watch.Gateway(vip1); g.Address != far || g.Answers || g.MAC != nil {
		t.Errorf("vip1's gateway is %+v", g)
	}
	if p := s.state(vip1); p.VIP.IsValid() {
		t.Errorf("told %+v", p)
	}
}

// After a reload an unchanged VIP is not proven again, a VIP with another gateway is, and
// a VIP that left the configuration is left alone.
func TestConfigure(t *testing.T) {
	t.Parallel()
	s := join(t)
	first := []Link{{VIP: vip1, Interface: "eth0"}, {VIP: vip2, Interface: "eth0"}}
	s.open(first...)
	s.answers(vip1)
	s.take(vip1)
	s.take(vip2)
	s.proven(vip1)
	s.proven(vip2)
	told := func() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.proofs) }
	before := told()
	s.watch.Configure(first, RelayLink{}, nil, time.Minute)
	s.answersAgain(vip1)
	if told() != before {
		t.Errorf("told %d times more by the same configuration", told()-before)
	}
	far := netip.MustParseAddr("192.0.2.254")
	s.router.set(func(r *router) { r.ip[0] = far })
	s.watch.Configure([]Link{{VIP: vip1, Interface: "eth0", Gateway: far}}, RelayLink{}, nil, time.Minute)
	s.await("proof by the other gateway", func() bool { p := s.state(vip1); return p.State == RouterProven && p.Gateway == far })
	if p := s.state(vip2); p.Gateway != gatewayAddr {
		t.Errorf("told of what is gone: %+v", p)
	}
	s.watch.LetGo(vip2) // the agent may call this late
	if g := s.watch.Gateway(vip2); g.Address.IsValid() {
		t.Errorf("gateway of what is gone: %+v", g)
	}
}
