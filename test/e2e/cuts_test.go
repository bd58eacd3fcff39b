package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// soon lets peers notice within a second what takes them five seconds by default. The
// verdicts are the same.
const soon = calm + "[sip]\npeer_interval = \"200ms\"\ntimeout = \"300ms\"\nrise = 1\n"

// TestSIPCuts loses only SIP, in every pattern that three nodes have, while heartbeats
// pass. A PBX that one peer does not hear stays. A PBX that no peer hears loses its VIP.
// Where no node hears any other, nothing moves.
func TestSIPCuts(t *testing.T) {
	s := start(t, cluster.Options{TOML: soon})
	for _, c := range []struct {
		name  string
		cut   string // directions in which all SIP is lost; with ? only requests
		blind string // a>b: a's probes of b stay unanswered
		unfit string
	}{
		{"holder to a peer", "1>2", "1>2 2>1", ""},
		{"a peer to the holder", "2>1", "1>2 2>1", ""},
		{"a peer's requests", "2>1?", "2>1", ""},
		{"the holder's requests", "1>2?", "1>2", ""},
		{"requests in a ring", "1>2? 2>3? 3>1?", "1>2 2>3 3>1", ""},
		{"spare cut off", "1>3 3>1 2>3 3>2", "1>3 2>3 3>1 3>2", "3"},
		{"holder to all", "1>2 1>3", "1>2 1>3 2>1 3>1", "1"},
		{"all to the holder", "2>1 3>1", "1>2 1>3 2>1 3>1", "1"},
		{"all peers' requests", "2>1? 3>1?", "2>1 3>1", "1"},
		{"each on its own", "1>2 2>1 1>3 3>1 2>3 3>2", "1>2 1>3 2>1 2>3 3>1 3>2", "1 2 3"},
	} {
		home, want := "pbx1", moves{0, 0}
		if c.unfit == "1" {
			home, want = "pbx3", moves{1, 0}
		}
		s.scene(t, c.name, want, func(t *testing.T, at time.Duration) {
			for i := range s.Nodes() { // the faults of the scene before are over
				s.status(t, i, "every probe answered", func(st control.Status) bool { return blind(st) == "" })
			}
			for _, d := range strings.Fields(c.cut) {
				from, to := s.ends(d)
				s.block(t, []lab.Match{{From: from, To: to, Protocol: unix.IPPROTO_UDP, Port: 5060, ToPort: strings.HasSuffix(d, "?")}})
			}
			for i := range s.Nodes() {
				st := s.status(t, i, "the probes "+c.blind+" unanswered", func(st control.Status) bool { return blind(st) == c.blind && unfit(st) == c.unfit })
				if all := c.unfit == "1 2 3"; st.AllUnfit != all || !st.Quorum {
					t.Errorf("%s says: all unfit %v, quorum %v", st.Node, st.AllUnfit, st.Quorum)
				}
			}
			s.hears(t, 0, home, at)
			watch(500 * time.Millisecond)
			s.silent(t, 0, at, 300*time.Millisecond) // if it is a planned move, the phone hears pbx1 to the end
		})
	}
}

// ends returns the hosts of a direction such as 1>2.
func (s *site) ends(direction string) (from, to *lab.Host) {
	return s.Node(int(direction[0] - '1')), s.Node(int(direction[2] - '1'))
}

// blind lists, by each node's own report, which node hears nothing but silence from which
// PBX.
func blind(st control.Status) string {
	var all []string
	for _, n := range st.Nodes {
		for _, v := range n.Views {
			if v.SIP == "silent" {
				all = append(all, strings.TrimPrefix(v.From, "pbx")+">"+strings.TrimPrefix(n.Name, "pbx"))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func unfit(st control.Status) string {
	var all []string
	for _, n := range st.Nodes {
		if !n.Fit {
			all = append(all, strings.TrimPrefix(n.Name, "pbx"))
		}
	}
	return strings.Join(all, " ")
}

// TestHeartbeatCuts is the reverse: heartbeats and asks are lost while all SIP passes. A
// node that exchanges packets with a majority both ways keeps its VIP. A PBX that answers
// does not save a VIP without a majority. No gateway carries heartbeats around the cuts
// here, as one that relays would.
func TestHeartbeatCuts(t *testing.T) {
	s := start(t, cluster.Options{TOML: "survivor = \"never\"\n" + soon})
	for _, c := range []struct {
		name, cut string
		deaf      string // a<b: a does not hear b
		goes      bool
	}{
		{"holder to a peer", "1>2", "2<1", false},
		{"a peer to the holder", "2>1", "1<2", false},
		{"spare cut off", "1>3 3>1 2>3 3>2", "1<3 2<3 3<1 3<2", false},
		{"holder to all", "1>2 1>3", "2<1 3<1", true},
		{"all to the holder", "2>1 3>1", "1<2 1<3", true},
	} {
		want := moves{0, 0}
		if c.goes {
			want = moves{1, 0}
		}
		s.scene(t, c.name, want, func(t *testing.T, at time.Duration) {
			s.cutHeartbeats(t, c.cut)
			s.hearsNot(t, c.deaf)
			since := lab.Now()
			await(t, "vip1 where it belongs", func(context.Context) error {
				// Which of the other two takes it may depend on 50 ms.
				if last, ok := s.phones[0].Last(); !ok || last.Sent < since || (last.Server != "pbx1") != c.goes {
					return fmt.Errorf("last answer from %q", last.Server)
				}
				return nil
			})
			watch(500 * time.Millisecond)
			if !c.goes {
				s.silent(t, 0, at, 50*time.Millisecond)
			}
			s.silent(t, 1, at, 50*time.Millisecond)
			s.must(t, s.Heal())
			s.status(t, 0, "pbx1 back", func(st control.Status) bool { return st.Quorum && unfit(st) == "" })
		})
	}
	t.Run("each on its own", func(t *testing.T) {
		s.settle(t)
		at := lab.Now()
		s.cutHeartbeats(t, "1>2 2>1 1>3 3>1 2>3 3>2")
		for i := range s.Nodes() {
			s.status(t, i, "no quorum, and nothing held", func(st control.Status) bool {
				return !st.Quorum && len(node(st, st.Node).Holds) == 0 && node(st, st.Node).SIP == "up"
			})
		}
		for v, addr := range s.VIPs {
			if at := s.bound(t, addr); len(at) > 0 {
				t.Errorf("vip%d is at %v, and nobody has a majority", v+1, at)
			}
		}
		s.must(t, s.Heal())
		await(t, "the cluster at rest", s.atRest)
		s.checkOneHolder(t, at)
		s.checkForeign(t)
		s.checkEpochs(t)
	})
}

func (s *site) cutHeartbeats(t *testing.T, cut string) {
	t.Helper()
	for _, d := range strings.Fields(cut) {
		from, to := s.ends(d)
		s.block(t, []lab.Match{{From: from, To: to, Protocol: unix.IPPROTO_UDP, Port: 7946}, {From: from, To: to, Protocol: unix.IPPROTO_TCP, Port: 7946}})
	}
}

// hearsNot waits until exactly these nodes miss exactly these others (want as in deaf).
func (s *site) hearsNot(t *testing.T, want string) {
	t.Helper()
	for i, h := range s.Nodes() {
		s.status(t, i, "who hears whom is "+want, func(st control.Status) bool {
			for _, n := range st.Nodes {
				missed := slices.Contains(strings.Fields(want), fmt.Sprintf("%d<%s", i+1, strings.TrimPrefix(n.Name, "pbx")))
				if n.Name != h.Name && n.Alive == missed {
					return false
				}
			}
			return true
		})
	}
}
