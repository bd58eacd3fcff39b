package hooks

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	BecomeAction()
	if os.Getenv(helperEnv) != "" {
		os.Exit(helperMain())
	}
	goleak.VerifyTestMain(m)
}

// patience limits waits for what should happen soon. It is no expectation of how long
// they take.
const patience = 30 * time.Second

var processStart = time.Now()

func testNow() int64 { return int64(time.Since(processStart)) }

func newTestRunner(t *testing.T, opts Options) *Runner {
	t.Helper()
	if opts.Now == nil {
		opts.Now = testNow
	}
	r := NewRunner(opts)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// journal collects what a chain reports.
type journal struct {
	mu       sync.Mutex
	outcomes []Outcome
	ok       bool
	end      End
	ended    chan struct{}
}

func newJournal() *journal { return &journal{ended: make(chan struct{})} }

func (j *journal) report(o Outcome) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.outcomes = append(j.outcomes, o)
}

func (j *journal) done(end End) {
	j.ok, j.end = end.OK, end
	close(j.ended) // a second call of done panics
}

// wait returns the outcomes once the chain has ended.
func (j *journal) wait(t *testing.T) []Outcome {
	t.Helper()
	select {
	case <-j.ended:
	case <-time.After(patience):
		t.Fatal("the chain has not ended")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.outcomes
}

// runOne runs a chain of one action and returns its outcome.
func runOne(t *testing.T, r *Runner, a Action) Outcome {
	t.Helper()
	a.On = Acquire
	j := newJournal()
	r.Start("vip1", Acquire, 1, Event{VIP: "vip1"}, []Action{a}, j.report, j.done)
	out := j.wait(t)
	if len(out) != 1 {
		t.Fatalf("%d outcomes for one action: %+v", len(out), out)
	}
	if j.ok != out[0].OK {
		t.Errorf("done(%v) after OK=%v", j.ok, out[0].OK)
	}
	return out[0]
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}
