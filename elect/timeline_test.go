package elect_test

import (
	"math"
	"testing"
	"time"

	"sipalive/elect"
)

// A timeline goes to every live peer, whoever holds the VIP by now. What others tell
// decides nothing.
func TestTimelineGoesToWhoeverIsThere(t *testing.T) {
	b := newBench(t)
	told := elect.Timeline{VIP: vip1, Epoch: 7, Outcome: "done"}
	say := func(m elect.Timeline) (to []elect.Node) {
		for _, out := range b.step(elect.Tell{Timeline: m}).Send {
			if _, is := out.Msg.(elect.Timeline); is {
				to = append(to, out.To)
			}
		}
		return to
	}
	if to := say(told); to != nil {
		t.Errorf("told %v, and nobody is there", to)
	}
	b.beat("a", 31)
	if to := say(told); len(to) != 1 || to[0] != "a" {
		t.Errorf("told %v, want a, which is there, and not c", to)
	}
	if to := say(elect.Timeline{VIP: "192.0.2.250"}); to != nil {
		t.Errorf("told %v of a VIP that nobody has", to)
	}
	if eff := b.hear("a", 31, told); len(eff.Transitions)+len(eff.Answers)+len(eff.Send) > 0 {
		t.Errorf("heard of a takeover: %+v", eff)
	}
}

func TestMicros(t *testing.T) {
	const longest = math.MaxUint32 * time.Microsecond
	for d, want := range map[time.Duration]elect.Micros{0: 0, 999: 0, 1999: 1, time.Hour: 3600e6, longest: math.MaxUint32} {
		if got, fits := elect.InMicros(d); !fits || got != want {
			t.Errorf("%v is %d us, %v; want %d", d, got, fits, want)
		}
	}
	for _, d := range []time.Duration{-1, longest + time.Microsecond} {
		if got, fits := elect.InMicros(d); fits {
			t.Errorf("%v is taken for %d us", d, got)
		}
	}
	if d := elect.Micros(1500).Duration(); d != 1500*time.Microsecond {
		t.Errorf("1500 us are %v", d)
	}
}

// A takeover's transition has the new holder's lease: the one in a's heartbeats, and b's
// own once b takes vip1 over.
func TestTransitionsSayWhoseLease(t *testing.T) {
	b := newBench(t)
	b.facts = nil
	file := elect.Lists{File: abc, Active: abc}
	b.hear("a", 31, elect.Heartbeat{Lists: file, Lease: 3 * time.Second, SIP: elect.SIPUp, Holds: []elect.Hold{{VIP: vip1, Epoch: 7}}})
	b.own(t)
	leases := map[elect.TransitionKind]time.Duration{}
	for _, tr := range b.facts {
		leases[tr.Kind] = tr.Lease
	}
	if a, own := leases[elect.HolderSeen], leases[elect.Acquired]; a != 3*time.Second || own != benchConfig().Lease {
		t.Errorf("a took it under a lease of %v, b under %v; want 3 s and 1 s", a, own)
	}
}
