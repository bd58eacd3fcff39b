package agent

import (
	"context"
	"sync"
	"time"

	"sipalive/elect"
)

// durableWriter writes the newest durable record to disk in its own goroutine, so the
// loop does not wait for a slow disk.
type durableWriter struct {
	a    *Agent
	mu   sync.Mutex
	next *elect.Durable
	wake chan struct{}
}

// durableRetry is the wait before a failed write is tried again.
const durableRetry = time.Second

func newDurableWriter(a *Agent) *durableWriter {
	return &durableWriter{a: a, wake: make(chan struct{}, 1)}
}

func (w *durableWriter) put(d *elect.Durable) {
	w.mu.Lock()
	w.next = d
	w.mu.Unlock()
	poke(w.wake)
}

func (w *durableWriter) take() *elect.Durable {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.next
	w.next = nil
	return d
}

func (w *durableWriter) run(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			if d := w.take(); d != nil {
				_ = w.a.Directory.StoreDurable(d) // the last record may contain an operator's drain
			}
			return nil
		case <-w.wake:
		}
		for d := w.take(); d != nil; d = w.take() {
			if err := w.a.Directory.StoreDurable(d); err != nil {
				if !failing {
					w.a.recorder.warn("store the node's state", err)
				}
				failing = true
				w.retryLater(ctx, d)
				continue
			}
			failing = false
			w.a.report(elect.Stored{Version: d.Version})
		}
	}
}

// retryLater puts back a record that the disk refused, unless a newer one is there, and waits.
func (w *durableWriter) retryLater(ctx context.Context, d *elect.Durable) {
	w.mu.Lock()
	if w.next == nil {
		w.next = d
	}
	w.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(durableRetry):
	}
}
