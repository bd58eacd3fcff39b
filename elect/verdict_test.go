package elect_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sipalive/elect"
)

// observer is machine b, which hears a and probes a's PBX.
type observer struct {
	*bench
	told elect.SIPState // the verdict about a's PBX in b's last heartbeat
	asks bool           // the last step asks for a probe of a's PBX
}

func newObserver(t *testing.T) *observer {
	return &observer{bench: aloneBench(t, "a", "b", "c")}
}

func (o *observer) do(ev elect.Event) {
	eff := o.step(ev)
	o.asks = slices.Contains(eff.Probe, "a")
	for _, s := range eff.Send {
		b, is := s.Msg.(elect.Heartbeat)
		if !is || s.To != "c" {
			continue
		}
		o.told = b.Rest
		for _, ob := range b.Observes {
			if ob.Node == "a" {
				o.told = ob.SIP
			}
		}
	}
}

// hears delivers a heartbeat of a, and lets time pass to the next heartbeats of both.
func (o *observer) hears() {
	o.seq["a"]++
	o.do(elect.Received{From: "a", Instance: 7, Seq: o.seq["a"], Msg: elect.Heartbeat{Lease: time.Second, SIP: elect.SIPUp}})
	o.passes(200 * time.Millisecond)
}

func (o *observer) passes(d time.Duration) {
	for end := o.now.Add(d); o.now < end; {
		o.now = min(end, o.m.Deadline())
		o.do(elect.Tick{})
	}
}

// sees gives b a verdict. Its probes began at since, the last of them at last (since
// where none is given).
func (o *observer) sees(s elect.SIPState, since elect.Instant, last ...elect.Instant) {
	o.do(elect.Health{Node: "a", SIP: s, Since: since, Last: append(last, since)[0]})
}

// A verdict about a node that was cut off is told to nobody until as many probes as the
// verdict takes have been repeated. Probes are asked for as soon as the node is heard
// again.
func TestVerdictOfWhoWasCutOff(t *testing.T) {
	o := newObserver(t)
	o.hears()
	o.sees(elect.SIPUp, 0)
	o.hears()
	cut := o.now
	o.passes(4 * time.Second)
	o.sees(elect.SIPSilent, cut.Add(time.Second))
	if o.passes(200 * time.Millisecond); o.told != elect.SIPUnknown {
		t.Errorf("told %s of a node that it does not hear", o.told)
	}
	back := o.now
	o.seq["a"]++
	o.do(elect.Received{From: "a", Instance: 7, Seq: o.seq["a"], Msg: elect.Heartbeat{Lease: time.Second, SIP: elect.SIPUp}})
	if !o.asks {
		t.Error("the PBX is not asked at once when its node is heard again")
	}
	for range 5 {
		if o.hears(); o.told != elect.SIPUnknown {
			t.Errorf("told %s, which rests on probes that were cut", o.told)
		}
	}
	o.sees(elect.SIPSilent, back.Add(-time.Millisecond), back.Add(time.Millisecond)) // some of the probes were cut
	if o.hears(); o.told != elect.SIPSuspect {
		t.Errorf("told %s, want a suspicion: it rests on probes some of which were cut", o.told)
	}
	o.sees(elect.SIPSilent, back.Add(time.Millisecond))
	if o.told != elect.SIPSilent {
		t.Errorf("told %s at once, want silent", o.told)
	}
}

// A refusal came by the direct path itself, and so did an answer: they are told at once.
func TestVerdictThatCameDirectly(t *testing.T) {
	o := newObserver(t)
	o.hears()
	o.hears()
	for _, s := range []elect.SIPState{elect.SIPRefused, elect.SIPUp, elect.SIPRefused} {
		o.passes(time.Millisecond)
		if o.sees(s, 0); o.told != s {
			t.Errorf("told %s at once, want %s", o.told, s)
		}
	}
}

// TestVerdictsTold compares what b tells with a second implementation, over any history
// of packets and probes.
func TestVerdictsTold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := newObserver(t)
		var came []elect.Instant // when packets came directly
		o.hears()
		came = append(came, o.now.Add(-200*time.Millisecond))
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if d := time.Duration(rapid.IntRange(0, 12).Draw(rt, "hundreds of ms")) * 100 * time.Millisecond; d > 0 {
				o.passes(d)
			}
			s := rapid.SampledFrom([]elect.SIPState{elect.SIPUnknown, elect.SIPSuspect, elect.SIPSilent, elect.SIPRefused}).Draw(rt, "verdict, unknown: a packet")
			if s == elect.SIPUnknown {
				came = append(came, o.now)
				o.hears()
				continue
			}
			since := o.now.Add(-time.Duration(rapid.IntRange(0, 9).Draw(rt, "since")) * 100 * time.Millisecond)
			last := since.Add(time.Duration(rapid.IntRange(0, int(o.now.Sub(since)/(100*time.Millisecond))).Draw(rt, "last")) * 100 * time.Millisecond)
			o.sees(s, since, last)
			want := elect.SIPUnknown
			switch refused := s == elect.SIPRefused; {
			case restsOn(came, since, true) && restsOn(came, last, refused):
				want = s
			case restsOn(came, last, refused):
				want = elect.SIPSuspect
			}
			if o.passes(200 * time.Millisecond); o.told != want {
				rt.Fatalf("told %s, want %s: packets at %v, probes since %d", o.told, want, came, since)
			}
		}
	})
}

// restsOn is the second implementation: since the probe began no packet has ended a break
// of the direct path (700 ms), and some packet has come, or the probe itself was
// answered.
func restsOn(came []elect.Instant, since elect.Instant, answered bool) bool {
	for i, at := range came {
		if at > since && (i == 0 || at.Sub(came[i-1]) >= 700*time.Millisecond) {
			return false
		}
	}
	return answered || came[len(came)-1] >= since
}
