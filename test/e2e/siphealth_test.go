package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestSIPHealth plays what makes a PBX count as sick and what does not, at the default
// timing.
func TestSIPHealth(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm})
	s.scene(t, "one peer is blind", moves{0, 0}, s.oneBlindPeer)
	s.scene(t, "all peers are blind", moves{1, 0}, s.allBlindPeers)
	s.scene(t, "heartbeats lost between two", moves{0, 0}, s.heartbeatsLostBetweenTwo)
	s.scene(t, "heartbeats lost to all", moves{1, 0}, s.heartbeatsLostToAll)
	s.scene(t, "PBX frozen", moves{1, 0}, s.frozenPBX)
	s.scene(t, "freeze and thaw", moves{1, 0}, s.freezeAndThaw)
	s.scene(t, "freeze ends by itself", moves{1, 0}, s.freezeEnds)
	s.scene(t, "freeze outlives the agent", moves{1, 0}, s.freezeOutlivesTheAgent)
	s.scene(t, "every PBX frozen", moves{0, 0}, s.everyPBXFrozen) // last, because nothing moves for `settle` after it
}

// sip matches SIP between two nodes; heartbeats matches all packets between their agents.
func sip(a, b *lab.Host) []lab.Match {
	return []lab.Match{{From: a, To: b, BothWays: true, Protocol: unix.IPPROTO_UDP, Port: 5060}}
}

func heartbeats(a, b *lab.Host) []lab.Match {
	return []lab.Match{{From: a, To: b, BothWays: true, Protocol: unix.IPPROTO_UDP, Port: 7946},
		{From: a, To: b, BothWays: true, Protocol: unix.IPPROTO_TCP, Port: 7946}}
}

func (s *site) block(t *testing.T, matches ...[]lab.Match) {
	t.Helper()
	for _, m := range slices.Concat(matches...) {
		s.must(t, s.Block(m))
	}
}

// view returns one node's verdict about another's PBX.
func view(st control.Status, of, by string) string {
	for _, v := range node(st, of).Views {
		if v.From == by {
			return v.SIP
		}
	}
	return ""
}

// oneBlindPeer: the verdict of one observer is not enough. The status shows every node's
// view.
func (s *site) oneBlindPeer(t *testing.T, at time.Duration) {
	s.block(t, sip(s.Node(0), s.Node(1)))
	for i := range s.Nodes() {
		st := s.status(t, i, "pbx2 alone against pbx1", func(st control.Status) bool {
			return view(st, "pbx1", "pbx2") == "silent" && view(st, "pbx2", "pbx1") == "silent"
		})
		if view(st, "pbx1", "pbx1") != "up" || view(st, "pbx1", "pbx3") != "up" || !node(st, "pbx1").Fit || !node(st, "pbx2").Fit {
			t.Errorf("%s says %+v", st.Node, st.Nodes)
		}
	}
	out := s.done(t, 2, "status")
	if want := "! pbx1: its PBX is not heard by pbx2, but by others"; !strings.Contains(out, want) {
		t.Errorf("status does not say %q:\n%s", want, out)
	}
	watch(time.Second)
	s.silent(t, 0, at, 20*time.Millisecond)
}

// allBlindPeers: the holder hears its own PBX, and no other node hears it.
func (s *site) allBlindPeers(t *testing.T, at time.Duration) {
	s.block(t, sip(s.Node(0), s.Node(1)), sip(s.Node(0), s.Node(2)))
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 500*time.Millisecond) // a planned move: the phone hears pbx1 to the end
}

func (s *site) heartbeatsLostBetweenTwo(t *testing.T, at time.Duration) {
	s.noRelay(t)
	s.block(t, heartbeats(s.Node(0), s.Node(1)))
	s.status(t, 0, "pbx2 not heard", func(st control.Status) bool { return !node(st, "pbx2").Alive })
	watch(2 * time.Second)
	s.silent(t, 0, at, 20*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
}

// heartbeatsLostToAll: a PBX that answers does not save a VIP without a majority.
func (s *site) heartbeatsLostToAll(t *testing.T, at time.Duration) {
	s.noRelay(t)
	s.block(t, heartbeats(s.Node(0), s.Node(1)), heartbeats(s.Node(0), s.Node(2)))
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 2500*time.Millisecond)
	s.must(t, s.Heal())
	s.status(t, 0, "pbx1 back", func(st control.Status) bool { return st.Quorum && node(st, "pbx1").Fit })
}

// giveUp is the latest time for a takeover from a frozen PBX: fall x self_interval +
// timeout, and 300 ms.
const giveUp = 3*200*time.Millisecond + 400*time.Millisecond + 300*time.Millisecond

func (s *site) frozenPBX(t *testing.T, at time.Duration) {
	s.must(t, s.PBX(0).Stop())
	s.hears(t, 0, "pbx3", at)
	const late = 300 * time.Millisecond // other tests use the machine too
	s.silent(t, 0, at, giveUp+late)
	s.must(t, s.PBX(0).Cont())
}

// everyPBXFrozen is what a stalled shared database causes: nothing moves, one alarm is
// raised, and it clears by itself.
func (s *site) everyPBXFrozen(t *testing.T, at time.Duration) {
	for i := range s.Nodes() {
		s.must(t, s.PBX(i).Stop())
	}
	for i := range s.Nodes() {
		s.status(t, i, "nobody fit", func(st control.Status) bool { return st.AllUnfit })
	}
	watch(time.Second)
	for i := range s.Nodes() {
		s.must(t, s.PBX(i).Cont())
	}
	for i := range s.Nodes() {
		s.status(t, i, "well again", func(st control.Status) bool { return !st.AllUnfit && node(st, "pbx1").Fit })
		if n := s.alarms(t, i, at); n != 2 {
			t.Errorf("%s tells %d times of everybody's sickness, want its begin and its end", s.Node(i).Name, n)
		}
	}
}

// alarms counts the all_unfit events since a moment.
func (s *site) alarms(t *testing.T, i int, since time.Duration) (n int) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	events, err := s.Client(i).Events(ctx, 1000)
	s.must(t, err)
	begin := time.Now().Add(since - lab.Now())
	for _, e := range events {
		if e.Kind == control.KindAllUnfit && e.Time.After(begin) {
			n++
		}
	}
	return n
}

// freezeAndThaw: the holder's PBX is restarted under a freeze, and later dies for good.
func (s *site) freezeAndThaw(t *testing.T, at time.Duration) {
	if out := s.done(t, 1, "freeze", "pbx1", "--for", "1m"); !strings.HasPrefix(out, "pbx1 is frozen for 1m0s") {
		t.Errorf("freeze says %q", out)
	}
	s.PBX(0).Kill()
	for i := range s.Nodes() {
		s.status(t, i, "pbx1 frozen, and its PBX down", func(st control.Status) bool {
			n := node(st, "pbx1")
			return n.FrozenFor > 0 && n.FrozenFor <= control.Millis(time.Minute) && n.SIP == "down" && n.Fit
		})
	}
	if out := s.done(t, 2, "status"); !strings.Contains(out, "! pbx1 frozen for another ") {
		t.Errorf("status says nothing of it:\n%s", out)
	}
	watch(2 * time.Second)
	if h := s.holder(t, 0); h != "pbx1" {
		t.Errorf("vip1 is at %q although pbx1 is frozen", h)
	}
	s.must(t, s.StartPBX(0))
	s.hears(t, 0, "pbx1", lab.Now())
	if out := s.done(t, 0, "thaw"); out != "pbx1 is watched again\n" {
		t.Errorf("thaw says %q", out)
	}
	s.status(t, 2, "pbx1 thawed", func(st control.Status) bool { return node(st, "pbx1").FrozenFor == 0 && node(st, "pbx1").Fit })
	killed := lab.Now()
	s.PBX(0).Kill()
	s.hears(t, 0, "pbx3", killed)
	s.silent(t, 0, killed, 500*time.Millisecond)
}

// freezeEnds: a forgotten freeze ends by itself, and a PBX that is sick then loses its
// VIP.
func (s *site) freezeEnds(t *testing.T, at time.Duration) {
	s.done(t, 0, "freeze", "--for", "2s")
	s.PBX(0).Kill()
	s.hears(t, 0, "pbx3", at)
	if r := s.saw(0, at); r.Silence < 1500*time.Millisecond || r.Silence > 4*time.Second {
		t.Errorf("silence of %v, want the rest of the 2 s that pbx1 was frozen", r.Silence)
	}
}

// freezeOutlivesTheAgent: an agent is killed while its PBX is frozen for maintenance, and
// comes back within its lease. The freeze goes on, and no longer than it was told to.
func (s *site) freezeOutlivesTheAgent(t *testing.T, at time.Duration) {
	const long = 6 * time.Second
	s.done(t, 0, "freeze", "--for", long.String())
	frozen := lab.Now()
	s.Agent(0).Kill()
	s.must(t, s.StartAgent(0))
	s.PBX(0).Kill()
	for i := range s.Nodes() {
		s.status(t, i, "pbx1 still frozen, with a new agent", func(st control.Status) bool {
			n := node(st, "pbx1")
			return n.Alive && n.FrozenFor > 0 && n.Fit && n.SIP == "down"
		})
	}
	s.hears(t, 0, "pbx3", at)
	if ended := lab.Now() - frozen; ended < long-100*time.Millisecond || ended > long+3*time.Second {
		t.Errorf("pbx1 was frozen for %v, want %v", ended, long)
	}
}

// TestVIPTarget: the VIP's own SIP profile dies while the node's lives on. That VIP alone
// moves, at once. Where no node is better, the VIP stays, and the status says so. The
// target's interval is so long that its next regular question would come too late.
func TestVIPTarget(t *testing.T) {
	var profiles []*lab.Process
	profile := func(h *lab.Host) *lab.Process {
		p, err := h.Start(lab.Spec{Name: "profile-" + h.Name, Path: binary, Args: []string{"demo-pbx", h.Name, "0.0.0.0:5080"}})
		if err != nil {
			panic(err) // an error of the test itself
		}
		return p
	}
	s := start(t, cluster.Options{
		TOML: calm + "[sip]\nverify_timeout = \"1s\"\n[[sip.target]]\n[[sip.target]]\nname = \"profile1\"\nuri = \"udp:5080\"\non = \"vip1\"\ninterval = \"4s\"\nrise = 1\n",
		PBX: func(h *lab.Host) (lab.Spec, bool) {
			profiles = append(profiles, profile(h))
			return demoPBX(h)
		}})
	quick := 0 // twice, since one quick try may be due to a question that was just due
	for try := 1; try <= 5 && quick < 2; try++ {
		s.scene(t, fmt.Sprintf("noticed at once, try %d", try), moves{1, 0}, func(t *testing.T, at time.Duration) {
			killed := lab.Now()
			profiles[0].Kill()
			s.hears(t, 0, "pbx3", at)
			took := s.boundAt(t, 0, "pbx3", killed) - killed
			t.Logf("at pbx3 %v after the kill", took)
			if took <= 300*time.Millisecond {
				quick++
			}
			profiles[0] = profile(s.Node(0))
		})
	}
	if quick < 2 {
		t.Errorf("within 300 ms of its profile's end vip1 moved %d times of five", quick)
	}
	s.scene(t, "profile killed", moves{2, 0}, func(t *testing.T, at time.Duration) {
		profiles[0].Kill()
		s.hears(t, 0, "pbx3", at)
		st := s.status(t, 0, "vip1 verified elsewhere", func(st control.Status) bool {
			return st.VIPs[0].Holder == "pbx3" && st.VIPs[0].Verified
		})
		if !node(st, "pbx1").Fit {
			t.Errorf("pbx1 is not fit for a profile of a VIP: %+v", node(st, "pbx1"))
		}
		st = s.status(t, 2, "the target on vip1 at its holder", func(st control.Status) bool {
			return len(st.VIPs[0].Targets) == 1 && st.VIPs[0].Targets[0].State == "up"
		})
		if target := st.VIPs[0].Targets[0]; target.Name != "profile1" || target.URI != "udp:5080" || target.Code != 200 || target.Median <= 0 {
			t.Errorf("%+v", target)
		}

		for _, p := range profiles {
			p.Kill()
		}
		// pbx2 has not failed it yet; after it, nobody is left to try.
		s.status(t, 1, "vip1 at pbx2, unverified", func(st control.Status) bool {
			return st.VIPs[0].Holder == "pbx2" && st.VIPs[0].State == "held" && !st.VIPs[0].Verified && !st.VIPs[0].Unchecked
		})
		watch(2 * time.Second)
		for i, h := range s.Nodes() {
			profiles[i] = profile(h)
		}
		s.status(t, 2, "vip1 verified again", func(st control.Status) bool { return st.VIPs[0].State == "held" && st.VIPs[0].Verified })
	})
}

// boundAt returns when a node's kernel first had a VIP since a moment.
func (s *site) boundAt(t *testing.T, vip int, node string, since time.Duration) time.Duration {
	t.Helper()
	events, err := s.addresses.Events()
	s.must(t, err)
	for _, e := range events {
		if e.At >= since && e.Addr == s.VIPs[vip] && e.Host == node && e.Bound {
			return e.At
		}
	}
	t.Fatalf("%s was never bound at %s", cluster.VIPName(vip), node)
	return 0
}

// TestChecks: what a node's own check says makes it unfit, and a shared sickness moves
// nothing.
func TestChecks(t *testing.T) {
	dir := t.TempDir()
	script := func(t *testing.T, text string, nodes ...string) {
		t.Helper()
		for _, n := range nodes {
			path := filepath.Join(dir, n)
			if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
	}
	say := func(t *testing.T, code string, nodes ...string) {
		t.Helper()
		script(t, "echo database says "+code+"; exit "+code+"\n", nodes...)
	}
	all := []string{"pbx1", "pbx2", "pbx3"}
	say(t, "0", all...)
	s := start(t, cluster.Options{TOML: calm + fmt.Sprintf(
		"[[check]]\nname = \"database\"\nexec = [\"/bin/sh\", \"-c\", \". %s/$SIPALIVE_NODE\"]\ninterval = \"3s\"\ntimeout = \"3s\"\nfall = 2\n", dir)})
	s.scene(t, "a warning", moves{0, 0}, func(t *testing.T, _ time.Duration) {
		say(t, "1", "pbx1")
		s.status(t, 0, "the warning", func(st control.Status) bool {
			c := node(st, "pbx1").Checks
			return len(c) == 1 && c[0].State == "warn" && c[0].Text == "database says 1" && !c[0].Unfit && node(st, "pbx1").Fit
		})
		watch(1500 * time.Millisecond)
		say(t, "0", "pbx1")
	})
	s.scene(t, "unfit", moves{1, 0}, func(t *testing.T, at time.Duration) {
		say(t, "2", "pbx1")
		s.hears(t, 0, "pbx3", at)
		s.silent(t, 0, at, 300*time.Millisecond) // a planned move: its PBX still serves
		st := s.status(t, 0, "pbx1 unfit", func(st control.Status) bool { return !node(st, "pbx1").Fit })
		if n := node(st, "pbx1"); n.SIP != "up" || n.Why != "its own checks say no: database: database says 2" {
			t.Errorf("%+v", n)
		}
		say(t, "0", "pbx1")
	})
	s.scene(t, "unfit everywhere", moves{0, 0}, func(t *testing.T, _ time.Duration) {
		// Each node runs its check at its own moments, so a node that is asked to take
		// over runs its check again. However long that takes, here longer than a lease,
		// the holder keeps holding. The second no of the holder's check is the last
		// moment at which the other checks were good.
		once, twice := filepath.Join(dir, "once"), filepath.Join(dir, "twice")
		script(t, fmt.Sprintf("[ -e %s ] && touch %s; touch %s; exit 2\n", once, twice, once), "pbx1")
		script(t, fmt.Sprintf("[ -e %s ] || exit 0; sleep 1.2; exit 2\n", twice), "pbx2", "pbx3")
		for i := range s.Nodes() {
			s.status(t, i, "nobody fit", func(st control.Status) bool { return st.AllUnfit })
		}
		say(t, "0", all...)
	})
}
