package member

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"sipalive/elect"
)

// TestAnswered: an answer to gossip's ping shows that the path works in both directions.
func TestAnswered(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	cfg.probe = 50 * time.Millisecond
	a := start(t, cfg)
	meetUp(t, a, start(t, config(2, port)))
	eventually(t, "pbx2 has answered a ping", func() bool { ago, ever := a.Answered("pbx2"); return ever && ago < 5*time.Second })
	if ago, ever := a.Answered("pbx3"); ever {
		t.Errorf("a node that is not there answered %s ago", ago)
	}
}

// TestReach: what a peer sends unasked, what it answers, and packets sealed with another
// key are told apart. Reach itself is no new instance to any peer.
func TestReach(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	mute, foreign := start(t, config(2, port)), config(3, port)
	foreign.Keys = [][]byte{[]byte("another key, that nobody else has")[:32]}
	other := start(t, foreign)

	// While the machine stands still, answers come too late. So ask again if one is missing.
	asking := func(good func(map[elect.Node]Reached) bool) (found map[elect.Node]Reached) {
		for n := 0; n < 5 && (n == 0 || !good(found)); n++ {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			var err error
			found, err = Reach(ctx, cfg)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
		}
		return found
	}
	beat := func(n *node) (stop func()) {
		end, ended := make(chan bool), make(chan bool)
		go func() {
			defer close(ended)
			for seq := elect.Seq(5000); ; seq++ {
				select {
				case <-end:
					return
				case <-time.After(20 * time.Millisecond):
					_ = n.Send(elect.Outgoing{To: "pbx1", Seq: seq, Msg: elect.Heartbeat{}})
				}
			}
		}()
		return func() { close(end); <-ended }
	}

	stop := beat(other)
	silent, stranger := Reached{Answers: true}, Reached{Foreign: true}
	found := asking(func(found map[elect.Node]Reached) bool { return found["pbx2"] == silent && found["pbx3"] == stranger })
	stop()
	if found["pbx2"] != silent {
		t.Errorf("a peer that sends nothing by itself: %+v, want %+v", found["pbx2"], silent)
	}
	if found["pbx3"] != stranger {
		t.Errorf("a peer with another key: %+v, want %+v", found["pbx3"], stranger)
	}
	stop = beat(mute)
	beats := Reached{Heard: true, Answers: true}
	found = asking(func(found map[elect.Node]Reached) bool { return found["pbx2"] == beats })
	stop()
	if found["pbx2"] != beats {
		t.Errorf("a peer that beats: %+v, want %+v", found["pbx2"], beats)
	}
	if c := mute.Counters(); c.Garbage+c.WrongSource+c.Unproven+c.Replayed > 0 {
		t.Errorf("the question was taken for something else: %+v", c)
	}
	// Now the agent starts. It is heard as if nobody had used its place. pbx2 repeats its
	// last packet once pbx1 has said hello, so lower numbers are old.
	meetUpFrom(t, start(t, cfg), mute, 1_000_000)
	if _, err := Reach(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside an agent: %v", err)
	}
}
