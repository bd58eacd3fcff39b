package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
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
