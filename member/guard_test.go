package member

import (
	"math/rand/v2"
	"testing"

	"sipalive/elect"
)

func counter() func() uint64 {
	var n uint64
	return func() uint64 { n++; return n * 0x9e3779b97f4a7c15 }
}

// shared is one source for all guards of a test, so nonces never collide.
var shared = rand.New(rand.NewPCG(1, 2)).Uint64

// met returns the guards of two nodes that know each other's instance.
func met(t *testing.T) (a, b *Guard) {
	t.Helper()
	a, b = NewGuard("a", 1, shared), NewGuard("b", 2, shared)
	meet(t, a, b)
	return a, b
}

// meet does what a start does: a sends a hello, b answers, then one packet goes each way.
func meet(t *testing.T, a, b *Guard) {
	t.Helper()
	if v, news, owed := b.Greet(a.Stamp(b.self, 0)); v != Fresh || !news || !owed {
		t.Fatalf("hello: %v, news %v, owed %v", v, news, owed)
	}
	if v, news, owed := a.Greet(b.Stamp(a.self, 0)); v != Fresh || !news || owed {
		t.Fatalf("its answer: %v, news %v, owed %v", v, news, owed)
	}
	expect(t, b, a.Stamp(b.self, 100), true, Adopted)
	expect(t, a, b.Stamp(a.self, 100), true, Adopted)
}

func expect(t *testing.T, g *Guard, h Header, newest bool, want Verdict) {
	t.Helper()
	if v := g.Accept(h, newest); v != want {
		t.Errorf("%s on packet %d of %s: %v, want %v", g.self, h.Seq, h.From, v, want)
	}
}

func TestWindow(t *testing.T) {
	const other, newest = false, true
	type packet struct {
		seq    elect.Seq
		newest bool
		want   Verdict
	}
	for name, packets := range map[string][]packet{
		"heartbeats and asks must be the newest of all": {
			{101, newest, Fresh}, {103, other, Fresh}, {102, newest, Replayed}, {104, newest, Fresh}},
		"others may be overtaken, once": {
			{105, newest, Fresh}, {103, other, Fresh}, {103, other, Duplicate}, {103, other, Replayed}, {104, other, Fresh}},
		"the second path's copy is a duplicate, the next a replay": {
			{101, newest, Fresh}, {101, newest, Duplicate}, {101, newest, Replayed}},
		"63 back is inside":  {{200, newest, Fresh}, {137, other, Fresh}, {137, other, Duplicate}},
		"64 back is outside": {{200, newest, Fresh}, {136, other, Replayed}},
		"a leap clears the window": {
			{101, other, Fresh}, {1 << 40, other, Fresh}, {1<<40 - 1, other, Fresh}, {101, other, Replayed}},
		"nothing up to the adopted one": {{99, other, Replayed}, {37, other, Replayed}, {1, other, Replayed}},
		"the adopted one's copy":        {{100, newest, Duplicate}, {100, newest, Replayed}},
		"the highest number there is":   {{^elect.Seq(0), newest, Fresh}, {^elect.Seq(0), newest, Duplicate}, {200, other, Replayed}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := met(t)
			for _, p := range packets {
				expect(t, b, a.Stamp("b", p.seq), p.newest, p.want)
			}
		})
	}
}

func TestPacketForAnotherNodeOrFromOurselves(t *testing.T) {
	a, b := met(t)
	a.Greet(NewGuard("c", 3, shared).Stamp("a", 0))
	expect(t, b, a.Stamp("c", 101), false, Misdirected)
	expect(t, a, a.Stamp("b", 101), false, Own)
	expect(t, b, a.Stamp("b", 101), true, Fresh)
	if v, _, _ := b.Greet(a.Stamp("c", 0)); v != Misdirected {
		t.Errorf("hello for another: %v", v)
	}
}

func TestUnknownInstanceNeedsOurNonce(t *testing.T) {
	_, b := met(t)
	boot := NewGuard("a", 11, shared)
	expect(t, b, boot.Stamp("b", 1), true, Unproven)
	expect(t, b, boot.Stamp("b", 2), true, Unproven)
	boot.Greet(b.Stamp("a", 0))
	expect(t, b, boot.Stamp("b", 3), true, Adopted)
	expect(t, b, boot.Stamp("b", 2), false, Replayed)
	expect(t, b, boot.Stamp("b", 4), true, Fresh)
}

func TestHelloMakesNoInstanceCurrent(t *testing.T) {
	// If a hello made an instance current, packets recorded before b's restart would be
	// within the window of that instance.
	a, b := met(t)
	recorded := a.Stamp("b", 101)
	expect(t, b, recorded, false, Fresh)
	b = NewGuard("b", 2, shared)
	a.Greet(b.Stamp("a", 0))
	b.Greet(a.Stamp("b", 0))
	expect(t, b, recorded, false, Unproven)
	expect(t, b, a.Stamp("b", 102), true, Adopted)
	expect(t, b, recorded, false, Replayed)
}

func TestAgentRestartInItsInstanceIsAcceptedAtOnce(t *testing.T) {
	_, b := met(t)
	restarted := NewGuard("a", 1, shared)
	expect(t, b, restarted.Stamp("b", 1000), true, Fresh)
	// b's packets reach the restarted a after one round trip.
	expect(t, restarted, b.Stamp("a", 101), true, Adopted)
}

func TestOldInstanceNeverReturns(t *testing.T) {
	old, b := met(t)
	withheld := old.Stamp("b", 500) // its echo was valid when it was made
	boot := NewGuard("a", 11, shared)
	boot.Greet(b.Stamp("a", 0))
	expect(t, b, boot.Stamp("b", 1), true, Adopted)
	expect(t, b, withheld, false, Retired)
	old.Greet(b.Stamp("a", 0)) // a clone that still runs and hears b's new nonce
	expect(t, b, old.Stamp("b", 501), true, Retired)
	if v, news, owed := b.Greet(old.Stamp("b", 0)); v != Retired || news || owed {
		t.Errorf("hello of an old instance: %v, news %v, owed %v", v, news, owed)
	}
	expect(t, b, boot.Stamp("b", 2), true, Fresh)
}

func TestForgottenInstanceCannotReturnByReplay(t *testing.T) {
	old, b := met(t)
	recorded := []Header{}
	guard := old
	for i := range elect.Instance(rememberedInstances + 3) {
		guard.Greet(b.Stamp("a", 0))
		h := guard.Stamp("b", 1000)
		recorded = append(recorded, h, guard.Stamp("b", 1001))
		b.Accept(h, true)
		guard = NewGuard("a", 100+i, shared)
	}
	guard.Greet(b.Stamp("a", 0))
	expect(t, b, guard.Stamp("b", 5), true, Adopted)
	if b.peers["a"].isRetired(old.instance) {
		t.Fatal("the first instance is still remembered: the test shows nothing")
	}
	for _, h := range recorded {
		if v := b.Accept(h, false); v == Fresh || v == Adopted {
			t.Errorf("packet %d of instance %d came back: %v", h.Seq, h.Instance, v)
		}
	}
	expect(t, b, guard.Stamp("b", 6), true, Fresh)
}

func TestNonceIsNeverZero(t *testing.T) {
	zeros := 3
	g := NewGuard("a", 1, func() uint64 {
		if zeros--; zeros >= 0 {
			return 0
		}
		return 7
	})
	if h := g.Stamp("b", 0); h.Nonce != 7 {
		t.Errorf("nonce %d", h.Nonce)
	}
}

func TestUnnumberedIsNoPacket(t *testing.T) {
	g := NewGuard("a", 1, counter())
	h := g.Stamp("b", 0)
	echo := Header{From: "b", To: "a", Instance: 5, Nonce: 1, Echo: h.Nonce}
	expect(t, g, echo, false, Unproven)
	echo.Instance, echo.Seq = 0, 1
	expect(t, g, echo, false, Unproven)
}

// TestRelayedMayBeOvertaken: a direct packet may overtake one that came through the
// gateway. The relayed packet then shows once that the gateway relays, but its message
// does not count.
func TestRelayedMayBeOvertaken(t *testing.T) {
	a, b := NewGuard("a", 1, counter()), NewGuard("b", 2, counter())
	b.Accept(a.Stamp("b", 1), false) // exchanges nonces
	if v := a.Accept(b.Stamp("a", 2), false); v != Adopted {
		t.Fatal(v)
	}
	relayed, late := b.Stamp("a", 3), b.Stamp("a", 4)
	relayed.Relayed = true
	if v := a.Accept(late, true); v != Fresh {
		t.Fatal(v)
	}
	if v, overtaken := a.AcceptRelayed(relayed, true); v != Fresh || !overtaken {
		t.Errorf("overtaken by a newer packet: %s, overtaken %v", v, overtaken)
	}
	if v, _ := a.AcceptRelayed(relayed, true); v == Fresh {
		t.Error("its copy is fresh too")
	}
	next := b.Stamp("a", 5)
	if v, overtaken := a.AcceptRelayed(next, true); v != Fresh || overtaken {
		t.Errorf("the newest: %s, overtaken %v", v, overtaken)
	}
}
