// Package stalltest tells a test for how long the machine let it stand still, so that
// a bound on how long something takes holds on a busy machine too.
package stalltest

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	period = 10 * time.Millisecond
	// usual is how late a core may look without having stood still.
	usual = 10 * time.Millisecond
)

// span is when a core stood still.
type span struct{ from, to time.Time }

// core is what the thread that is pinned to a core has seen.
type core struct {
	looked time.Time
	stood  []span
}

func (c *core) look(now time.Time) {
	if due := c.looked.Add(period + usual); now.After(due) {
		c.stood = append(c.stood, span{due, now})
	}
	c.looked = now
}

// Watch measures until the test ends on how many cores it may run, and in how much
// time at least one of them did not run this process: because the host of a virtual
// machine stopped the core, or because others had it. Whatever is timed in this process
// may be that much later, and no more: each moment counts once, on however many cores.
func Watch(t testing.TB) (stood func() time.Duration) {
	t.Helper()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		t.Fatalf("ask for the cores of this process: %v", err)
	}
	var mu sync.Mutex
	var cores []*core
	var ended sync.WaitGroup
	done := make(chan struct{})
	for n := range len(may) * 64 {
		if !may.IsSet(n) {
			continue
		}
		c := &core{looked: time.Now()}
		cores = append(cores, c)
		ended.Go(func() {
			if err := pin(n); err != nil {
				t.Errorf("pin a thread to core %d: %v", n, err)
				return
			}
			for !closed(done) {
				_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(period)}, nil) // a sooner end is as good
				mu.Lock()
				c.look(time.Now())
				mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { close(done); ended.Wait() })
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		var all []span
		for now, i := time.Now(), 0; i < len(cores); i++ {
			c := core{looked: cores[i].looked}
			c.look(now) // it may stand still now
			all = append(append(all, cores[i].stood...), c.stood...)
		}
		return union(all)
	}
}

// pin keeps this goroutine on a thread of its own on one core. The thread ends with
// the goroutine, so that no other runs on it.
func pin(n int) error {
	runtime.LockOSThread()
	var only unix.CPUSet
	only.Set(n)
	return unix.SchedSetaffinity(0, &only)
}

func closed(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// union is how much time the spans cover together.
func union(spans []span) (sum time.Duration) {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var until time.Time
	for _, s := range spans {
		if from := later(s.from, until); s.to.After(from) {
			sum += s.to.Sub(from)
			until = s.to
		}
	}
	return sum
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
