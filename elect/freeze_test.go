package elect_test

import (
	"slices"
	"testing"
	"time"

	"sipalive/elect"
)

func (b *bench) node(n elect.Node) elect.NodeStatus {
	b.t.Helper()
	for _, s := range b.m.Status().Nodes {
		if s.Name == n {
			return s
		}
	}
	b.t.Fatalf("no node %s", n)
	return elect.NodeStatus{}
}

func (b *bench) told(k elect.TransitionKind) bool {
	return slices.ContainsFunc(b.last.Transitions, func(t elect.Transition) bool { return t.Kind == k })
}

// A frozen holder is fit whatever its PBX says. A frozen node that holds nothing gains
// nothing. Time ends a freeze.
func TestFreeze(t *testing.T) {
	b := newBench(t)
	freeze := func(d time.Duration) {
		t.Helper()
		b.step(elect.Command{ID: 1, Kind: elect.CommandFreeze, For: d})
		if !b.told(elect.Frozen) || len(b.last.Answers) != 1 || b.last.Answers[0].Error != "" {
			t.Fatalf("%+v", b.last)
		}
	}
	freeze(time.Minute)
	b.step(elect.Health{Node: "b", SIP: elect.SIPRefused})
	if b.node("b").Fit {
		t.Error("a frozen node that holds nothing is fit with a refused port")
	}

	b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Second), Since: b.now}}, 21)
	b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
	freeze(100 * time.Millisecond)
	b.step(elect.Health{Node: "b", SIP: elect.SIPRefused})
	if n := b.node("b"); !n.Fit || n.Frozen <= 0 || n.Frozen > 100*time.Millisecond {
		t.Errorf("a frozen holder: %+v", n)
	}
	b.step(elect.Verified{VIP: vip1, Epoch: 5, OK: true})
	b.step(elect.Verified{VIP: vip1, Epoch: 5})
	if !b.m.Status().VIPs[0].Verified {
		t.Error("a verdict about a VIP counts although its holder is frozen")
	}
	b.pass(101 * time.Millisecond)
	if n := b.node("b"); n.Fit || n.Frozen != 0 {
		t.Errorf("after its time: %+v", n)
	}

	freeze(time.Minute)
	b.step(elect.Command{ID: 2, Kind: elect.CommandThaw})
	if n := b.node("b"); n.Fit || n.Frozen != 0 || !b.told(elect.Thawed) || !slices.Contains(b.last.Probe, "b") {
		t.Errorf("thawed: %+v, %+v", n, b.last)
	}
	freeze(100 * time.Hour)
	if f := b.node("b").Frozen; f != elect.MaxFreeze {
		t.Errorf("frozen for %v", f)
	}
}

// A verdict about a VIP that came while its holder was frozen counts once the freeze is
// over, unless the VIP has answered again before.
func TestVerdictsWaitForTheThaw(t *testing.T) {
	for name, c := range map[string]struct {
		said []bool // the verdicts about the VIP while its holder is frozen
		once bool   // they come from a takeover's verification: no later word follows
		ok   bool   // the VIP counts as verified after the freeze
	}{
		"failed":              {said: []bool{false}},
		"failed and is back":  {said: []bool{false, true}, ok: true},
		"back and failed":     {said: []bool{false, true, false}},
		"nothing was said":    {ok: true},
		"answers all the way": {said: []bool{true}, ok: true},
		"failed at a time":    {said: []bool{false}, once: true, ok: true}, // it may answer by now
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Second), Since: b.now}}, 21)
			b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
			b.step(elect.Verified{VIP: vip1, Epoch: 5, OK: true, Standing: true})
			b.step(elect.Command{ID: 1, Kind: elect.CommandFreeze, For: time.Minute})
			for _, ok := range c.said {
				if b.step(elect.Verified{VIP: vip1, Epoch: 5, OK: ok, Standing: !c.once}); b.told(elect.VerifyFailed) || !b.m.Status().VIPs[0].Verified {
					t.Fatalf("%v counts although the holder is frozen", ok)
				}
			}
			b.step(elect.Command{ID: 2, Kind: elect.CommandThaw})
			if v := b.m.Status().VIPs[0]; v.Verified != c.ok || b.told(elect.VerifyFailed) == c.ok {
				t.Errorf("thawed: %+v, %+v", v, b.last.Transitions)
			}
			b.step(elect.Command{ID: 3, Kind: elect.CommandFreeze, For: time.Minute})
			if b.step(elect.Command{ID: 4, Kind: elect.CommandThaw}); b.told(elect.VerifyFailed) {
				t.Error("told again by another freeze")
			}
		})
	}
}

// Heartbeats tell of a freeze, and peers believe it no longer than it lasts.
func TestPeersFreeze(t *testing.T) {
	b := newBench(t)
	b.hear("a", 11, elect.Heartbeat{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, SIP: elect.SIPRefused,
		Frozen: 300 * time.Millisecond, Holds: []elect.Hold{{VIP: vip1, Epoch: 5}}})
	if n := b.node("a"); !n.Fit || n.Frozen != 300*time.Millisecond {
		t.Errorf("a frozen peer that holds: %+v", n)
	}
	b.pass(301 * time.Millisecond)
	if n := b.node("a"); n.Fit || n.Frozen != 0 {
		t.Errorf("after its time: %+v", n)
	}
}

// The agent of a frozen holder may die and come back: the freeze goes on, ends at its
// time, and after a thaw it does not come back.
func TestFreezeOutlivesTheAgent(t *testing.T) {
	b := newBench(t)
	restart := func() {
		t.Helper()
		b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Second), Since: b.now}}, 22)
		b.step(elect.Health{Node: "b", SIP: elect.SIPRefused})
	}
	b.step(elect.Command{ID: 1, Kind: elect.CommandFreeze, For: 500 * time.Millisecond})
	if b.last.Runtime == nil || b.last.Runtime.FrozenUntil != b.now.Add(500*time.Millisecond) {
		t.Fatalf("not in the record that is stored before the operator is answered: %+v", b.last.Runtime)
	}
	b.now += elect.Instant(200 * time.Millisecond)
	restart()
	if n := b.node("b"); !n.Fit || n.Frozen != 300*time.Millisecond {
		t.Errorf("restarted while frozen: %+v", n)
	}
	b.pass(301 * time.Millisecond)
	if n := b.node("b"); n.Fit || n.Frozen != 0 {
		t.Errorf("after its time: %+v", n)
	}
	restart()
	if n := b.node("b"); n.Fit || b.runtime.FrozenUntil != 0 {
		t.Errorf("what has ended is on record again: %+v", n)
	}

	b.step(elect.Command{ID: 2, Kind: elect.CommandFreeze, For: 100 * time.Millisecond})
	b.now += elect.Instant(200 * time.Millisecond)
	b.start(nil, 22)
	if n := b.node("b"); n.Frozen != 0 || !b.told(elect.Thawed) {
		t.Errorf("its time ended while no agent ran: %+v, %+v", n, b.last.Transitions)
	}

	b.step(elect.Command{ID: 3, Kind: elect.CommandFreeze, For: time.Hour})
	b.step(elect.Command{ID: 4, Kind: elect.CommandThaw})
	restart()
	if n := b.node("b"); n.Frozen != 0 {
		t.Errorf("thawed, and frozen again by a restart: %+v", n)
	}
}

// A freeze or thaw of another node is requested until that node's heartbeats show it:
// frozen for as long as asked, or not frozen any more. What its heartbeats said before
// does not count, however near it comes.
func TestFreezeOfAnotherIsSeen(t *testing.T) {
	for name, c := range map[string]struct {
		kind         elect.CommandKind
		before, long time.Duration
	}{
		"a short freeze":        {elect.CommandFreeze, 0, time.Second},
		"the longest":           {elect.CommandFreeze, 0, elect.MaxFreeze},
		"of one frozen shorter": {elect.CommandFreeze, 1500 * time.Millisecond, 3 * time.Second},
		"of one frozen longer":  {elect.CommandFreeze, 3 * time.Second, 1500 * time.Millisecond},
		"thawed before its end": {elect.CommandThaw, 1500 * time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			requests := 0
			answers := func() (all []string) {
				for _, a := range b.last.Answers {
					all = append(all, a.Error)
				}
				for _, o := range b.last.Send {
					if r, ok := o.Msg.(elect.Request); ok && o.To == "a" && r.Kind == c.kind && r.For == c.long {
						requests++
					}
				}
				return all
			}
			beat := func(frozen time.Duration) []string {
				b.hear("a", 11, elect.Heartbeat{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, SIP: elect.SIPUp, Frozen: max(frozen, 0)})
				return answers()
			}
			beat(c.before)
			b.step(elect.Command{ID: 1, Kind: c.kind, Node: "a", For: c.long})
			early := answers()
			for i := range time.Duration(10) { // the first requests are lost
				b.now += elect.Instant(100 * time.Millisecond)
				b.step(elect.Tick{})
				early = append(append(early, answers()...), beat(c.before-(i+1)*100*time.Millisecond)...)
			}
			if len(early) > 0 || requests < 3 {
				t.Errorf("answered %q to %d requests before it has shown", early, requests)
			}
			if got := beat(c.long); !slices.Equal(got, []string{""}) {
				t.Errorf("answered %q once it shows", got)
			}
		})
	}
}
