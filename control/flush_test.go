package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFlush(t *testing.T) {
	_, _, dir := start(t, steady())
	results, err := NewClient(dir).Flush(ctxFor(t))
	if err != nil || Flushed(results) || !Flushed(results[:1]) {
		t.Fatalf("%+v, %v", results, err)
	}
	var out strings.Builder
	if err := WriteFlush(&out, results); err != nil {
		t.Fatal(err)
	}
	want := "NODE  ACTION                     RESULT  TOOK    NOTE\n" +
		"pbx1  memcached 127.0.0.1:11211  ok      1.2 ms\n" +
		"pbx2  -                          failed  -       not heard\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestFlushOutlivesACommand: only the actions' timeouts limit a flush. But the client
// does not wait for an agent that does not answer at all.
func TestFlushOutlivesACommand(t *testing.T) {
	agent := steady()
	passed := make(chan struct{})
	agent.flush = func(ctx context.Context) ([]FlushResult, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-passed:
			return []FlushResult{{Node: "pbx1", OK: true}}, nil
		}
	}
	agent.do = func(ctx context.Context, _ Command) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	_, _, dir := start(t, agent, func(s *Server) { s.do = 10 * time.Millisecond })
	c := NewClient(dir)
	c.do = 10 * time.Millisecond
	done := make(chan error, 1)
	go func() { _, err := c.Flush(ctxFor(t)); done <- err }()
	if _, err := c.Do(ctxFor(t), Command{Kind: Failback}); err == nil {
		t.Fatal("a command is not bounded")
	}
	close(passed)
	if err := <-done; err != nil {
		t.Error(err)
	}

	silent := steady()
	silent.status = func(ctx context.Context) (Status, error) { <-ctx.Done(); return Status{}, ctx.Err() }
	silent.flush = func(ctx context.Context) ([]FlushResult, error) { <-ctx.Done(); return nil, ctx.Err() }
	_, _, dir = start(t, silent, func(s *Server) { s.ask = 10 * time.Millisecond })
	if _, err := NewClient(dir).Flush(ctxFor(t)); err == nil || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("an agent that answers nothing: %v", err)
	}
}

func TestFlushThatIsRefused(t *testing.T) {
	agent := steady()
	agent.flush = func(context.Context) ([]FlushResult, error) { return nil, errors.New("flush: no flush actions") }
	_, _, dir := start(t, agent)
	if _, err := NewClient(dir).Flush(ctxFor(t)); err == nil || err.Error() != "flush: no flush actions" {
		t.Errorf("%v", err)
	}
	if err := NewClient(dir).exchange(ctxFor(t), http.MethodGet, pathFlush, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "use POST") {
		t.Errorf("GET: %v", err)
	}
}
