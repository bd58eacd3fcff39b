package e2e

import (
	"os/exec"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestSurvivorOfTwoNetworks: heartbeats go by a management network and, as address2, by
// the VIPs' network, on which the gateway relays. The last node may hold alone only if
// both are silent; either network keeps the cluster whole.
//
// This test does not run in parallel with others. If the machine stands still for 0.2 s
// (seen once), the verdicts of three nodes that lose SIP at the same moment come apart,
// and the first node to reach its verdict moves its VIP.
func TestSurvivorOfTwoNetworks(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm, Paths: cluster.BothManagementFirst})
	s.must(t, s.SetMTU(1280))
	s.scene(t, "two of three die", moves{1, 1}, func(t *testing.T, at time.Duration) {
		s.relayKnown(t)
		s.lastOfThree(t)
	})
	// Probes ask SIP by the first network. So then each node hears only its own PBX, and
	// so soon after a cut no other PBX has been found well for long.
	s.scene(t, "the management switch dies, and a host", moves{1, 0}, func(t *testing.T, at time.Duration) {
		for _, n := range s.Nodes() {
			s.must(t, s.CutManagement(n))
		}
		watch(4 * time.Second) // longer than any verdict takes
		s.undisturbed(t, at)
		s.allAlive(t)
		fault := lab.Now()
		s.must(t, s.Cut(s.Node(0)))
		s.leaves(t, 0)
		s.silent(t, 0, fault, 2500*time.Millisecond)
		s.silent(t, 1, fault, 20*time.Millisecond)
		for _, n := range s.Nodes() {
			s.must(t, s.RestoreManagement(n))
		}
	})
	s.scene(t, "every service port isolated", moves{0, 0}, func(t *testing.T, at time.Duration) {
		s.isolate(t, 0)
		s.must(t, s.Sever(s.Node(1), s.Node(2)))
		watch(2500 * time.Millisecond) // longer than a lease, and than any verdict about a PBX
		s.undisturbed(t, at)
	})
}

// TestVIPsOnTwoNetworks: one node holds VIPs on two interfaces. Each VIP is given up,
// taken and followed separately. A witness serves as vip2's phone, since it is on that
// network too.
func TestVIPsOnTwoNetworks(t *testing.T) {
	t.Parallel()
	s := start(t, cluster.Options{
		TOML: calm, Paths: cluster.Both, Spread: true, Nodes: []string{"pbx1", "pbx2", "db1"}, Aside: []string{"eth1"},
		Node: func(i int) string {
			if i == 3 {
				return "holder = false"
			}
			return ""
		},
		PBX: func(h *lab.Host) (lab.Spec, bool) {
			spec, _ := demoPBX(h)
			return spec, h.Name != "db1"
		},
	})
	together := func(t *testing.T) {
		t.Helper()
		s.done(t, 0, "move", "vip2", "pbx1")
		s.hears(t, 1, "pbx1", lab.Now())
	}
	s.scene(t, "the host dies", moves{1, 2}, func(t *testing.T, _ time.Duration) {
		together(t)
		at := lab.Now()
		s.vanish(t, 0)
		for v := range s.VIPs {
			s.hears(t, v, "pbx2", at)
			s.silent(t, v, at, 2500*time.Millisecond)
		}
		s.comeBack(t, 0)
	})
	s.scene(t, "one of its two links goes down", moves{0, 2}, func(t *testing.T, at time.Duration) {
		together(t)
		ip := func(args ...string) {
			s.must(t, s.Node(0).Do(func() error { return exec.Command("ip", args...).Run() }))
		}
		down := lab.Now()
		ip("link", "set", "eth1", "down")
		defer ip("link", "set", "eth1", "up")
		s.hears(t, 1, "pbx2", down)
		s.silent(t, 1, down, 900*time.Millisecond) // given up at once, not at the end of its lease
		s.silent(t, 0, at, 20*time.Millisecond)
		if st := s.status(t, 1, "a status", func(control.Status) bool { return true }); st.VIPs[0].Holder != "pbx1" {
			t.Errorf("vip1 is at %s", st.VIPs[0].Holder)
		}
	})
}
