package e2e

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestNothingMoves plays what must not make a VIP move, at the default timing.
func TestNothingMoves(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm})
	s.scene(t, "severed pair", moves{0, 0}, s.severed)
	s.scene(t, "one-way link", moves{0, 0}, s.oneWay)
	s.scene(t, "blind observer", moves{0, 0}, s.blindObserver)
	s.scene(t, "every PBX killed", moves{0, 0}, s.allKilled)
	s.scene(t, "configuration differs", moves{0, 0}, s.otherConfig)
	s.scene(t, "agent killed and restarted", moves{0, 0}, s.restarted)
	s.scene(t, "second agent", moves{0, 0}, s.secondAgent)
	s.scene(t, "right missing", moves{0, 0}, s.withoutRight)
	s.scene(t, "VIP removed by hand", moves{0, 0}, s.removedByHand)
	s.scene(t, "VIP bound by hand", moves{0, 0}, s.boundByHand)
}

// undisturbed asserts that each VIP is at home and that the phone lost nothing.
func (s *site) undisturbed(t *testing.T, since time.Duration) {
	t.Helper()
	for v := range s.VIPs {
		if h := s.holder(t, v); h != s.home(v) {
			t.Errorf("%s is at %q, want %s", cluster.VIPName(v), h, s.home(v))
		}
		s.silent(t, v, since, 20*time.Millisecond)
	}
}

// agree waits until peers that missed a PBX for a while find it well again: three good
// answers, a second apart. Before that, two faults on two links in turn look like two
// observers of one dead PBX.
func agree() { watch(3500 * time.Millisecond) }

// severed: the two holders do not hear each other; the third node hears both.
func (s *site) severed(t *testing.T, at time.Duration) {
	s.must(t, s.Sever(s.Node(0), s.Node(1)))
	s.status(t, 0, "pbx1 hears pbx2 through the gateway alone", func(st control.Status) bool { return node(st, "pbx2").ByRelay && !node(st, "pbx3").ByRelay })
	watch(2 * time.Second)
	s.undisturbed(t, at)
	s.must(t, s.Heal())
	watch(time.Second)
	s.undisturbed(t, at)
}

// oneWay: first one peer does not hear the holder, then the holder does not hear one
// peer.
func (s *site) oneWay(t *testing.T, at time.Duration) {
	s.must(t, s.OneWay(s.Node(0), s.Node(2)))
	s.status(t, 2, "pbx3 hears pbx1 through the gateway alone", func(st control.Status) bool { return node(st, "pbx1").ByRelay })
	watch(2 * time.Second)
	s.undisturbed(t, at)
	s.must(t, s.Heal())
	s.must(t, s.OneWay(s.Node(2), s.Node(0)))
	s.status(t, 0, "pbx1 hears pbx3 through the gateway alone", func(st control.Status) bool { return node(st, "pbx3").ByRelay })
	watch(2 * time.Second)
	s.must(t, s.Heal())
	agree()
	s.undisturbed(t, at)
}

// blindObserver: one peer's OPTIONS to the holder stay unanswered. Three of them, a
// second apart, make its verdict; then the scene goes on with that verdict for a while.
func (s *site) blindObserver(t *testing.T, at time.Duration) {
	s.must(t, s.Block(lab.Match{From: s.Node(2), To: s.Node(0), BothWays: true, Protocol: unix.IPPROTO_UDP, Port: 5060}))
	silentBefore := s.status(t, 2, "pbx3's counters", func(control.Status) bool { return true }).Counters["sip_timeouts"]
	s.status(t, 2, "three of pbx3's questions unanswered", func(st control.Status) bool {
		return st.Counters["sip_timeouts"] >= silentBefore+3
	})
	watch(time.Second)
	s.must(t, s.Heal())
	agree()
	s.undisturbed(t, at)
}

// allKilled is a shared sickness: nothing moves (fail static), and the agents say so.
func (s *site) allKilled(t *testing.T, at time.Duration) {
	for _, i := range []int{2, 1, 0} { // the spare first, so that it is never the only one left
		s.must(t, s.PBX(i).Signal(unix.SIGKILL))
	}
	for i := range s.Nodes() {
		st := s.status(t, i, "all unfit", func(st control.Status) bool { return st.AllUnfit })
		for _, n := range st.Nodes {
			if n.Fit || n.SIP != "down" {
				t.Errorf("%s says of %s: %+v, want sip down and not fit", st.Node, n.Name, n)
			}
		}
	}
	watch(1500 * time.Millisecond)
	for v, addr := range s.VIPs {
		host, last := s.arp.Last(addr)
		if host != s.home(v) || lab.Now()-last > 200*time.Millisecond {
			t.Errorf("%s: ARP was answered last by %q at %v (now %v), want %s still", cluster.VIPName(v), host, last, lab.Now(), s.home(v))
		}
	}
	back := lab.Now()
	for i := range s.Nodes() {
		s.must(t, s.StartPBX(i))
	}
	for v := range s.VIPs {
		s.hears(t, v, s.home(v), back)
	}
	for i := range s.Nodes() {
		s.status(t, i, "not all unfit", func(st control.Status) bool { return !st.AllUnfit })
	}
}

// otherConfig: every node names a node whose file differs.
func (s *site) otherConfig(t *testing.T, at time.Duration) {
	good := s.Config
	defer func() { s.Config = good }()
	s.Config = s.variant(t, "[announce]\nrefresh = \"20s\"\n")
	s.restart(t, 2)
	for i := range s.Nodes() {
		s.status(t, i, "pbx3 differs", func(st control.Status) bool {
			differs := node(st, "pbx3").ConfigDiffers
			if i == 2 {
				differs = node(st, "pbx1").ConfigDiffers && node(st, "pbx2").ConfigDiffers
			}
			return differs && node(st, "pbx3").Alive
		})
	}
	watch(500 * time.Millisecond)
	s.undisturbed(t, at)
	s.Config = good
	s.restart(t, 2)
	s.status(t, 0, "pbx3 the same again", func(st control.Status) bool { n := node(st, "pbx3"); return n.Alive && n.Fit && !n.ConfigDiffers })
	s.undisturbed(t, at)
}
