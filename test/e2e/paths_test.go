package e2e

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestManagementNetwork: heartbeats on a network of their own, VIPs on another, every MTU
// 1280.
func TestManagementNetwork(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm, Paths: cluster.Management})
	s.must(t, s.SetMTU(1280))
	s.scene(t, "planned move", moves{1, 0}, s.plannedMove)
	s.scene(t, "service cable pulled", moves{1, 0}, s.servicePulled)
	s.scene(t, "router dead", moves{0, 0}, s.routerDead)
	s.scene(t, "service link dead", moves{1, 0}, s.serviceDead)
}

// servicePulled: every node hears the holder, but no phone reaches it. It gives its VIP
// away before its lease would end.
func (s *site) servicePulled(t *testing.T, at time.Duration) {
	since := time.Now()
	s.must(t, s.PullCable(s.Node(0)))
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 900*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
	if e := s.awaitEvent(t, 2, control.Takeover, since); e.From != "pbx1" {
		t.Errorf("event %+v", e)
	}
	st := s.status(t, 1, "pbx1 alive", func(st control.Status) bool { return node(st, "pbx1").Alive })
	if n := node(st, "pbx1"); !n.Fit {
		t.Errorf("pbx1: %+v", n)
	}
}

// routerDead: a router that is silent for all nodes moves nothing, and neither does its
// return.
func (s *site) routerDead(t *testing.T, _ time.Duration) {
	since := time.Now()
	s.must(t, s.Cut(s.Router()))
	for i, h := range s.Nodes() {
		if e := s.awaitEvent(t, i, control.KindRouter, since); !strings.Contains(e.Text, "has answered "+h.Name+" nothing for") &&
			!strings.Contains(e.Text, "does not reach it here any more") {
			t.Errorf("%s: event %q", h.Name, e.Text)
		}
	}
	s.must(t, s.Restore(s.Router()))
	s.hears(t, 0, "pbx1", lab.Now())
	watch(3 * time.Second)
}

// serviceDead: every node hears the holder by the other network, but its service link is
// dead behind a switch that still gives carrier. It gives its VIP to a node that reaches
// the router.
func (s *site) serviceDead(t *testing.T, at time.Duration) {
	since := time.Now()
	s.must(t, s.Cut(s.Node(0)))
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 6*time.Second)
	s.silent(t, 1, at, 20*time.Millisecond)
	if e := s.awaitEvent(t, 2, control.Takeover, since); e.From != "pbx1" || e.Reason != "verify" {
		t.Errorf("event %+v", e)
	}
	st := s.status(t, 1, "pbx1 alive", func(st control.Status) bool { return node(st, "pbx1").Alive })
	if n := node(st, "pbx1"); !n.Fit {
		t.Errorf("pbx1: %+v", n)
	}
}

// TestTwoPaths: with address2, the loss of either path moves nothing.
func TestTwoPaths(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm, Paths: cluster.Both})
	s.scene(t, "second path lost", moves{0, 0}, s.secondLost)
	s.scene(t, "first path lost", moves{0, 0}, s.firstLost)
}

func (s *site) secondLost(t *testing.T, at time.Duration) {
	for _, h := range s.Nodes() {
		s.must(t, s.CutManagement(h))
	}
	watch(2500 * time.Millisecond)
	s.undisturbed(t, at)
	s.allAlive(t)
	for _, h := range s.Nodes() {
		s.must(t, s.RestoreManagement(h))
	}
	watch(time.Second)
	s.undisturbed(t, at)
}

// firstLost: no heartbeat passes the service network, but phones and SIP probes do.
func (s *site) firstLost(t *testing.T, at time.Duration) {
	for i, a := range s.Nodes() {
		for _, b := range s.Nodes()[i+1:] {
			s.must(t, s.Block(lab.Match{From: a, To: b, BothWays: true, Protocol: unix.IPPROTO_UDP, Port: 7946}))
		}
	}
	watch(2500 * time.Millisecond)
	s.undisturbed(t, at)
	s.allAlive(t)
}

// allAlive waits until every node hears every other without the gateway's help. A gateway
// that relays would hide a lost path.
func (s *site) allAlive(t *testing.T) {
	t.Helper()
	for i := range s.Nodes() {
		s.status(t, i, "every node heard, and not through the gateway alone", func(st control.Status) bool {
			for _, n := range st.Nodes {
				if !n.Alive || n.ByRelay { // may happen for a moment, when the machine stands still
					return false
				}
			}
			return true
		})
	}
}
