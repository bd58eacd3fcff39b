package arp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/platform/stalltest"
)

// gatewayTold waits for the n-th state told of the gateway, and returns when it came.
func (s *segment) gatewayTold(n int, want GatewayState) (at time.Duration) {
	s.t.Helper()
	s.await("word of the gateway", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.gateways) >= n
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gateways[n-1] != want {
		s.t.Fatalf("told %v, want %v as number %d", s.gateways, want, n)
	}
	return bootNow()
}

// The gateway answers a node that holds no VIP, then nothing although the carrier is up,
// then answers again. It is in doubt well before it is silent.
func TestGatewaySilent(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.gatewayTold(1, GatewayAnswers)
		stalled := stalltest.Watch(t)
		down := bootNow()
		s.router.set(func(r *router) { r.down = true })
		doubt := s.gatewayTold(2, GatewayUnknown) - down
		silent := s.gatewayTold(3, GatewaySilent) - down
		t.Logf("in doubt after %v, silent after %v", doubt, silent)
		if doubt > 1600*time.Millisecond+stalled() || silent < SilentAfter-gatewayPulse-gatewayUrgent || silent > 5*time.Second+stalled() {
			t.Errorf("in doubt after %v, silent after %v", doubt, silent)
		}
		if doubt+time.Second > silent+stalled() {
			t.Errorf("silent %v after it was in doubt: another node may not have noticed", silent-doubt)
		}
		s.router.set(func(r *router) { r.down = false })
		var back []GatewayState
		s.await("word of a gateway that answers again", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			back = slices.Clone(s.gateways[3:])
			return slices.Contains(back, GatewayAnswers)
		})
		// It answers whichever comes first: a ping, or the question for its MAC. After that
		// question it is in doubt until the ping.
		if !slices.Equal(back, []GatewayState{GatewayAnswers}) && !slices.Equal(back, []GatewayState{GatewayUnknown, GatewayAnswers}) {
			t.Errorf("told %v when it came back", back)
		}
	})
}

// A gateway that no longer answers pings, but answers for its MAC, is not silent.
func TestGatewayThatLimitsPings(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.gatewayTold(1, GatewayAnswers)
		s.router.set(func(r *router) { r.pings = false })
		s.gatewayTold(2, GatewayUnknown)
		for end := bootNow() + 2*SilentAfter; bootNow() < end; time.Sleep(10 * time.Millisecond) {
			if g := s.watch.Gateway(vip); g.State == GatewaySilent {
				t.Fatalf("gateway %+v", g)
			}
		}
		s.router.set(func(r *router) { r.down = true }) // and now it is silent
		s.gatewayTold(3, GatewaySilent)
	})
}

func TestGatewayNeverHeard(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.router.set(func(r *router) { r.pings = false })
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.known(vip1)
	s.router.set(func(r *router) { r.down = true })
	for end := bootNow() + SilentAfter + 2*time.Second; bootNow() < end; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		told := slices.Clone(s.gateways)
		s.mu.Unlock()
		if len(told) > 0 {
			t.Fatalf("told %v of a gateway that never answered", told)
		}
	}
}

// A VIP that a reload adds is told the state of a gateway that is already known.
func TestGatewayOfANewVIP(t *testing.T) {
	s := join(t)
	first := Link{VIP: vip1, Interface: "eth0"}
	s.open(first)
	s.gatewayTold(1, GatewayAnswers)
	told := make(chan netip.Addr, 8)
	s.watch.mu.Lock()
	s.watch.o.OnGateway = func(vip netip.Addr, g GatewayState) {
		if g == GatewayAnswers {
			told <- vip
		}
	}
	s.watch.mu.Unlock()
	s.watch.Configure([]Link{first, {VIP: vip2, Interface: "eth0"}}, RelayLink{}, nil, time.Second)
	select {
	case vip := <-told:
		if vip != vip2 {
			t.Errorf("told of %v", vip)
		}
	case <-time.After(10 * time.Second):
		t.Error("not told")
	}
}
