package sipcheck

import (
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	const ms = time.Millisecond
	var r rtts
	if got := r.summary(); got != (RTT{}) {
		t.Errorf("without an answer: %+v", got)
	}
	r.add(7 * ms)
	if got, want := r.summary(), (RTT{1, 7 * ms, 7 * ms, 7 * ms, 7 * ms, 7 * ms}); got != want {
		t.Errorf("of one: %+v", got)
	}
	r = rtts{}
	for i := 100; i >= 1; i-- {
		r.add(time.Duration(i) * ms)
	}
	if got, want := r.summary(), (RTT{100, 5050 * ms, 50 * ms, 90 * ms, 99 * ms, 100 * ms}); got != want {
		t.Errorf("of 1 to 100 ms: %+v", got)
	}
	for range rttWindow { // a brown-out: older values are forgotten
		r.add(time.Second)
	}
	if got := r.summary(); got.Median != time.Second || got.Count != 100+rttWindow {
		t.Errorf("%+v", got)
	}
}

// TestBrownOutShowsInTheReport: a server that becomes ten times slower stays up, and
// Report shows it.
func TestBrownOutShowsInTheReport(t *testing.T) {
	slow := make(chan struct{})
	s := serve(t, ownAddress(), func(_ int, r request) [][]byte {
		select {
		case <-slow:
			time.Sleep(10 * time.Millisecond)
		default:
		}
		return [][]byte{reply(r, "200 OK")}
	})
	p := launch(t, quick(s.addr), Options{})
	p.change(Up)
	p.until("answers", func(s Stats) bool { return s.Answered > 20 })
	before := p.Report()
	close(slow)
	answered := p.Stats().Answered
	p.until("slow answers", func(s Stats) bool { return s.Answered > answered+rttWindow })
	after := p.Report()
	t.Logf("median %v, then %v", before.RTT.Median, after.RTT.Median)
	if after.Verdict != Up || after.Misses != 0 || after.Answer.Code != 200 || after.RTT.Median < 10*time.Millisecond || after.RTT.Median < before.RTT.Median {
		t.Fatalf("%+v", after)
	}
	s.kill()
	p.change(Refused)
	if r := p.Report(); r.Verdict != Refused || r.Err == nil || r.Answer.Code != 200 {
		t.Fatalf("%+v", r)
	}
}
