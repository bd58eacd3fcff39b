package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"sipalive/elect"
	"sipalive/sipcheck"
)

// newVIPWatch returns the watch of vip1, held under epoch 7, with a number of probers
// that never run.
func newVIPWatch(t *testing.T, probers int) (*vipTargets, *vipWatch) {
	t.Helper()
	r := newRecording(t)
	r.a.vipTargets = newVIPTargets(r.a)
	w := &vipWatch{lease: r.a.names().byID[vip1], epoch: 7, cancel: func() {}, verdict: map[*sipcheck.Prober]sipcheck.Verdict{}}
	for range probers {
		w.probers = append(w.probers, sipcheck.NewProber(sipcheck.Target{}, sipcheck.Options{}))
	}
	r.a.vipTargets.held[vip1] = w
	return r.a.vipTargets, w
}

// TestVIPTargetsGoneWhileTheQueueIsFull: a reload runs in the loop. It must not wait for
// the queue that only the loop empties.
func TestVIPTargetsGoneWhileTheQueueIsFull(t *testing.T) {
	v, _ := newVIPWatch(t, 1)
	v.a.events = make(chan elect.Event)
	taken := make(chan struct{})
	go func() { v.reconfigure(); close(taken) }()
	select {
	case <-taken:
	case <-time.After(20 * time.Second):
		t.Fatal("the reload waits for somebody to hear of it")
	}
	if got := <-v.a.events; got != (elect.Verified{VIP: vip1, Epoch: 7, Skipped: true}) {
		t.Errorf("told %+v, want that nothing is asked any more", got)
	}
}

// TestVIPVerdictsInOrder: while one verdict is on its way to the loop, the next is not
// processed, because it could overtake the first.
func TestVIPVerdictsInOrder(t *testing.T) {
	v, w := newVIPWatch(t, 1)
	v.a.events = make(chan elect.Event)
	told := func() sipcheck.Verdict {
		v.mu.Lock()
		defer v.mu.Unlock()
		return w.told
	}
	go v.hear(w, w.probers[0], sipcheck.Silent)
	for deadline := time.Now().Add(20 * time.Second); told() != sipcheck.Silent; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a verdict is not heard")
		}
	}
	go v.hear(w, w.probers[0], sipcheck.Up)
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if told() != sipcheck.Silent {
			t.Fatal("another verdict is on its way before the first one has arrived")
		}
	}
	for _, up := range []bool{false, true} {
		if got := <-v.a.events; got != (elect.Verified{VIP: vip1, Epoch: 7, OK: up, Standing: true}) {
			t.Errorf("told %+v, want whether it answers: %t", got, up)
		}
	}
}

// TestVIPTargetsOfAReload: a reload may add the first target on a VIP that is held
// already, and remove the last one.
func TestVIPTargetsOfAReload(t *testing.T) {
	r := newRecording(t)
	r.a.events = make(chan elect.Event, 1)
	r.a.vipTargets = newVIPTargets(r.a)
	v := r.a.vipTargets
	ended, end := context.WithCancel(context.Background())
	end() // so that no prober sends anything
	v.ctx = ended
	reload := func(targets string) {
		c := parse(t, strings.Replace(home, "[[role]]", targets+"[[role]]", 1))
		r.a.inForce.Store(&settled{config: c, names: newNames(c, r.a.names())})
		v.reconfigure()
	}
	v.start(r.a.names().byID[vip1], 7)
	for range 2 {
		reload("[[sip.target]]\nname = \"profile\"\nuri = \"udp:5080\"\non = \"vip1\"\n[[sip.target]]\nname = \"node\"\nuri = \"udp:5060\"\n")
		if n := len(v.of(vip1)); n != 1 {
			t.Fatalf("%d probers on vip1, want one", n)
		}
		reload("")
		if n := len(v.of(vip1)); n != 0 {
			t.Fatalf("%d probers on vip1, want none", n)
		}
		if got := <-r.a.events; got != (elect.Verified{VIP: vip1, Epoch: 7, Skipped: true}) {
			t.Errorf("told %+v, want that nothing is asked any more", got)
		}
	}
	v.probers.Wait()
}
