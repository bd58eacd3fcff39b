package control

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDrainQuietly(t *testing.T) {
	agent := steady()
	agent.drain = func(_ context.Context, w WaitCalls, progress func(CallsLeft)) (string, error) {
		if w != (WaitCalls{90 * time.Second, 2}) {
			return "", errors.New("told otherwise")
		}
		progress(CallsLeft{Calls: 5, Left: Millis(time.Minute)})
		progress(CallsLeft{Left: Millis(time.Second), Text: "no answer\n"})
		return "2 calls left; pbx1 is drained", nil
	}
	_, _, dir := start(t, agent)
	var seen []CallsLeft
	text, err := NewClient(dir).DrainQuietly(ctxFor(t), WaitCalls{90 * time.Second, 2}, func(p CallsLeft) { seen = append(seen, p) })
	if err != nil || text != "2 calls left; pbx1 is drained" {
		t.Errorf("%q, %v", text, err)
	}
	if d := cmp.Diff([]CallsLeft{{Calls: 5, Left: Millis(time.Minute)}, {Left: Millis(time.Second), Text: "no answer "}}, seen); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDrainQuietlyFails(t *testing.T) {
	agent := steady()
	agent.drain = func(context.Context, WaitCalls, func(CallsLeft)) (string, error) {
		return "", errors.New("drain --wait-calls: freeswitch 127.0.0.1:8021: connection refused")
	}
	_, _, dir := start(t, agent)
	_, err := NewClient(dir).DrainQuietly(ctxFor(t), WaitCalls{Wait: time.Second}, func(CallsLeft) {})
	if err == nil || err.Error() != "drain --wait-calls: freeswitch 127.0.0.1:8021: connection refused" {
		t.Errorf("%v", err)
	}
	for _, query := range []url.Values{{}, {"wait_ms": {"-1"}, "max_calls": {"0"}}, {"wait_ms": {"99999999999999"}, "max_calls": {"0"}}, {"wait_ms": {"1"}, "max_calls": {"x"}}} {
		if _, err := NewClient(dir).roundTrip(ctxFor(t), http.MethodPost, pathDrain, query, nil); err == nil {
			t.Errorf("%v is accepted", query)
		}
	}
}

// TestDrainQuietlyIsCancelled: the drain ends when its client goes away, and when the
// server stops.
func TestDrainQuietlyIsCancelled(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	agent := steady()
	agent.drain = func(ctx context.Context, _ WaitCalls, progress func(CallsLeft)) (string, error) {
		progress(CallsLeft{Calls: 1})
		begun <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return "", ctx.Err()
	}
	_, _, dir := start(t, agent)
	ctx, cancel := context.WithCancel(ctxFor(t))
	failed := make(chan error, 1)
	go func() {
		_, err := NewClient(dir).DrainQuietly(ctx, WaitCalls{Wait: time.Hour}, func(CallsLeft) {})
		failed <- err
	}()
	<-begun
	cancel()
	select {
	case <-ended:
	case <-time.After(deadline):
		t.Fatal("the agent goes on waiting")
	}
	if err := <-failed; err == nil {
		t.Error("the client says nothing")
	}
}

// TestDrainQuietlyHasTheLastWord: a client that interrupts a drain is told by the agent
// whether the drain was carried out all the same.
func TestDrainQuietlyHasTheLastWord(t *testing.T) {
	for _, c := range []struct {
		text string
		err  error
	}{
		{text: "0 calls left; pbx1 is drained"},
		{err: errors.New("drain --wait-calls: interrupted: nothing was moved")},
	} {
		agent := steady()
		agent.drain = func(ctx context.Context, _ WaitCalls, progress func(CallsLeft)) (string, error) {
			progress(CallsLeft{Calls: 1})
			<-ctx.Done()
			return c.text, c.err
		}
		_, _, dir := start(t, agent)
		ctx, cancel := context.WithCancel(ctxFor(t))
		text, err := NewClient(dir).DrainQuietly(ctx, WaitCalls{Wait: time.Hour}, func(CallsLeft) { cancel() })
		if text != c.text || (err == nil) != (c.err == nil) || err != nil && err.Error() != c.err.Error() {
			t.Errorf("heard %q, %v; want %q, %v", text, err, c.text, c.err)
		}
	}
}
