package elect_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/elect"
)

// The phones of a VIP are told to every live peer that may hold, and only by the VIP's
// holder. What others tell decides nothing.
func TestConnectionsAreTheHoldersWord(t *testing.T) {
	b := newBench(t)
	told := elect.Connections{VIP: vip1, Items: []elect.Connection{{Phone: netip.MustParseAddrPort("198.51.100.7:40000"), Port: 5060, Seq: 1, Ack: 2}}}
	say := func(s elect.Share) (to []elect.Node) {
		for _, out := range b.step(s).Send {
			if _, is := out.Msg.(elect.Connections); is {
				to = append(to, out.To)
			}
		}
		return to
	}
	share := func(c elect.Connections) []elect.Node { return say(elect.Share{Connections: c}) }
	b.beat("a", 31)
	if to := share(told); to != nil {
		t.Errorf("told %v of phones on a VIP that is not held here", to)
	}
	if to := say(elect.Share{Connections: told, Left: true}); len(to) != 1 {
		t.Errorf("told %v of phones on a VIP that was held here, want a", to)
	}
	b.own(t)
	if to := share(told); len(to) != 1 || to[0] != "a" {
		t.Errorf("told %v, want a, which is there, and not c", to)
	}
	if to := share(elect.Connections{VIP: "192.0.2.250"}); to != nil {
		t.Errorf("told %v of a VIP that nobody has", to)
	}
	if eff := b.hear("a", 31, told); len(eff.Transitions)+len(eff.Answers) > 0 {
		t.Errorf("heard of phones: %+v", eff)
	}
}

// own makes b take vip1, with a's vote.
func (b *bench) own(t *testing.T) {
	t.Helper()
	b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
	for end := b.now.Add(20 * time.Second); b.now < end; {
		if b.vote(b.step(elect.Tick{})) || b.vote(b.beat("a", 31)) {
			return
		}
		b.now = min(b.m.Deadline(), b.now.Add(100*time.Millisecond))
	}
	t.Fatal("b never holds vip1")
}

// vote grants what b asks of a, and reports whether b holds.
func (b *bench) vote(eff elect.Effects) (holds bool) {
	holds = slices.ContainsFunc(eff.Want, func(d elect.Desired) bool { return d.VIP == vip1 && d.Hold })
	for _, out := range slices.Clone(eff.Send) {
		ask, is := out.Msg.(elect.Ask)
		if !is || out.To != "a" {
			continue
		}
		answer := elect.Answer{Re: out.Seq, Prevote: ask.Prevote}
		for _, it := range ask.Items {
			answer.Items = append(answer.Items, elect.AnswerItem{VIP: it.VIP, Epoch: it.Epoch})
		}
		holds = b.vote(b.hear("a", 31, answer)) || holds
	}
	return holds
}
