package sipcheck

import (
	"flag"
	"os"
	"runtime"
	"testing"
	"time"
)

// leakProbes is how many probes TestNothingLeaks sends over each transport, half of them
// over new connections. The promise covers 100,000. Over TCP every run can afford that;
// over TLS half of them need a handshake on both sides.
var leakProbes = flag.Int("sipcheck.probes", 0, "probes per transport in TestNothingLeaks (default 100000 over TCP, 10000 over TLS)")

func leakRun(by Transport) int {
	switch {
	case *leakProbes > 0:
		return *leakProbes
	case raceEnabled: // the race detector makes everything some ten times slower
		return 2000
	case by == TLS:
		return 10_000
	}
	return 100_000
}

// TestNothingLeaks: kept connections, new ones, closed ones and unanswered probes leave
// no descriptor, goroutine or memory behind.
func TestNothingLeaks(t *testing.T) {
	overStreams(t, func(t *testing.T, k streamKind) {
		probes := leakRun(k.by)
		s := k.serve(t, ownAddress(), func(n int, r request) ([][]byte, bool) {
			if r.header("User-Agent") == "ignored" {
				return nil, n%2 == 0
			}
			return [][]byte{reply(r, "200 OK")}, n%100 == 0
		})
		target := quick(s.addr)
		target.Interval = time.Hour
		asked := k.launch(t, target, Options{})
		each := func(n int) {
			for i := range n {
				if _, err := asked.Probe(t.Context()); err != nil {
					t.Fatalf("probe %d: %v", i, err)
				}
				for len(asked.results) > 0 {
					<-asked.results
				}
			}
		}
		each(100)
		before := measure(t)
		each(probes / 2)
		ignored := target
		ignored.UserAgent, ignored.Timeout, ignored.Fall = "ignored", 40*time.Millisecond, 10
		unanswered := k.launch(t, ignored, Options{})
		unanswered.change(Silent)
		unanswered.stop()
		target.Interval = time.Nanosecond // one probe right after the other
		kept := k.launch(t, target, Options{})
		kept.until("all answers", func(s Stats) bool { return s.Answered >= uint64(probes/2) })
		kept.stop()
		after := measure(t)
		t.Logf("%d probes, %d connections: descriptors %d -> %d, goroutines %d -> %d, heap %d -> %d KiB",
			asked.Stats().Sent+kept.Stats().Sent, s.accepts(), before.files, after.files,
			before.goroutines, after.goroutines, before.heap>>10, after.heap>>10)
		// One connection that was closed at the first measurement may be open now. Both
		// of its ends are in this process.
		if after.files > before.files+2 || after.goroutines > before.goroutines+2 || after.heap > before.heap+6<<20 {
			t.Errorf("something leaks")
		}
	})
}

type footprint struct {
	files, goroutines int
	heap              uint64
}

// measure returns the lowest values seen in a short time. So what is just being freed,
// such as the server's side of a closed connection, is not taken for a leak.
func measure(t *testing.T) footprint {
	t.Helper()
	least := footprint{files: 1 << 30}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) <= least.files {
			least.files, least.goroutines = len(entries), runtime.NumGoroutine()
		}
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	least.heap = m.HeapAlloc
	return least
}
