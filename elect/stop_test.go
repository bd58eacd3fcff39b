package elect_test

import (
	"testing"
	"time"

	"sipalive/elect"
)

// TestStopAwaitsTheSuccessor: an agent that stops has handed over once the successor
// says that it holds, or has had a lease's time to; that every voter has heard of the
// release is not enough.
func TestStopAwaitsTheSuccessor(t *testing.T) {
	for _, says := range []bool{true, false} {
		b := newBench(t)
		b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Second), Since: b.now}}, 21)
		b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
		b.beat("a", 11)
		b.beat("c", 31)
		to := elect.Node("")
		for _, o := range b.step(elect.Command{ID: 1, Kind: elect.CommandStop}).Send {
			if _, is := o.Msg.(elect.Prepare); is {
				to = o.To
			}
		}
		instance := map[elect.Node]elect.Instance{"a": 11, "c": 31}[to]
		if instance == 0 {
			t.Fatalf("nobody is asked to get ready: %+v", b.last.Send)
		}
		b.hear(to, instance, elect.Ready{VIP: vip1, Epoch: 5, Nonce: 77, Lease: time.Second, Lists: elect.Lists{File: abc, Active: abc}})
		b.step(elect.Bound{VIP: vip1})
		b.hear("a", 11, elect.Released{VIP: vip1, Epoch: 5})
		if b.hear("c", 31, elect.Released{VIP: vip1, Epoch: 5}); b.last.Stopped {
			t.Fatal("stopped before the successor has said anything")
		}
		released := b.now
		if says {
			if b.beat(to, instance, elect.Hold{VIP: vip1, Epoch: 6}); !b.last.Stopped {
				t.Error("not stopped, though the successor holds")
			}
			continue
		}
		for b.now < released.Add(2*time.Second) && !b.last.Stopped {
			b.now = b.m.Deadline()
			b.step(elect.Tick{})
		}
		if waited := b.now.Sub(released); !b.last.Stopped || waited < time.Second || waited > 1100*time.Millisecond {
			t.Errorf("of a successor that says nothing: stopped is %v after %v", b.last.Stopped, waited)
		}
	}
}
