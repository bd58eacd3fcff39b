package elect_test

import (
	"testing"
	"time"

	"sipalive/elect"
)

// TestBeatsKeepTheirPace: a beat that leaves late does not delay those that follow,
// because other parts of the agent are timed by them.
func TestBeatsKeepTheirPace(t *testing.T) {
	b := newBench(t)
	untilBeat := func() elect.Instant {
		for {
			b.now = b.m.Deadline()
			for _, o := range b.step(elect.Tick{}).Send {
				if _, is := o.Msg.(elect.Heartbeat); is {
					return b.now
				}
			}
		}
	}
	const h = 200 * time.Millisecond
	first := untilBeat()
	b.now = first.Add(h + 50*time.Millisecond)
	b.step(elect.Tick{}) // a beat, late
	if next := untilBeat(); next != first.Add(2*h) {
		t.Errorf("after a beat 50 ms late the next one leaves %v after the first, want %v", next.Sub(first), 2*h)
	}
	b.now = first.Add(4*h + 70*time.Millisecond) // more than a whole interval late: the beats count from then on
	b.step(elect.Tick{})
	if next := untilBeat(); next != first.Add(5*h+70*time.Millisecond) {
		t.Errorf("after a pause the next one leaves %v after the first", next.Sub(first))
	}
}
