// Package stalltest tells a test how long the machine did not let it run, so that time
// limits in tests hold on a busy machine too.
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
	// usual is how late a core's thread may wake without counting as stalled.
	usual = 10 * time.Millisecond
)

// span is a time in which a core stood still.
type span struct{ from, to time.Time }

// core is what the thread pinned to one core has seen.
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

// Watcher measures the time in which at least one of the cores that this process may use
// did not run it: the host of a virtual machine stopped the core, or other processes had
// it. What a test times may be late by that much, and no more. Each moment counts once,
// on however many cores.
type Watcher struct {
	mu    sync.Mutex
	cores []*core
}

// Watch returns a function that returns how long the machine stood still since the call
// of Watch. It works until the test ends.
func Watch(t testing.TB) (stood func() time.Duration) {
	t.Helper()
	from := time.Now()
	w := NewWatcher(t)
	return func() time.Duration { return w.Since(from) }
}

// NewWatcher returns a Watcher that works until the test ends.
func NewWatcher(t testing.TB) *Watcher {
	t.Helper()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		t.Fatalf("ask for the cores of this process: %v", err)
	}
	w := &Watcher{}
	var ended sync.WaitGroup
	done := make(chan struct{})
	for n := range len(may) * 64 {
		if !may.IsSet(n) {
			continue
		}
		c := &core{looked: time.Now()}
		w.cores = append(w.cores, c)
		ended.Go(func() {
			if err := pin(n); err != nil {
				t.Errorf("pin a thread to core %d: %v", n, err)
				return
			}
			for !closed(done) {
				_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(period)}, nil) // waking early does no harm
				w.mu.Lock()
				c.look(time.Now())
				w.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { close(done); ended.Wait() })
	return w
}

// Since returns how long the machine stood still since from, which must not be before the
// watch began.
func (w *Watcher) Since(from time.Time) time.Duration { return w.Between(from, time.Now()) }

// Between returns how long the machine stood still between two moments.
func (w *Watcher) Between(from, to time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	var all []span
	for _, c := range w.cores {
		still := core{looked: c.looked}
		still.look(now) // the core may be standing still now
		all = append(append(all, c.stood...), still.stood...)
	}
	return union(all, from, to)
}

// pin keeps this goroutine on one core, on a thread of its own. The thread ends with the
// goroutine, so that no other goroutine runs on it.
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

// union returns how much of the time between two moments the spans cover together.
func union(spans []span, from, to time.Time) (sum time.Duration) {
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	for _, s := range spans {
		from = later(s.from, from)
		if s.to.After(to) {
			s.to = to
		}
		if s.to.After(from) {
			sum += s.to.Sub(from)
			from = s.to
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
