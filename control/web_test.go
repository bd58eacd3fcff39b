package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startWeb serves the status page on loopback until the test ends.
func startWeb(t *testing.T, agent Agent) (web *Web, journal *Journal, url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	journal = NewJournal(DefaultEvents)
	web = NewWeb(NewServer(agent, journal), "v1.2.3")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- web.Serve(ctx, l) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(deadline):
			t.Error("Serve did not end with its context")
		}
	})
	return web, journal, "http://" + l.Addr().String()
}

func ask(t *testing.T, method, url, host string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctxFor(t), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestWebPages(t *testing.T) {
	_, _, url := startWeb(t, steady())
	for path, want := range map[string]string{
		"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/metrics": "text/plain",
	} {
		code, header, body := ask(t, "GET", url+path, "")
		if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), want) || len(body) < 500 {
			t.Errorf("%s: %d, %s, %d bytes", path, code, header.Get("Content-Type"), len(body))
		}
		csp := header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", path, header)
		}
		if strings.Contains(body, "://") && path != "/metrics" {
			t.Errorf("%s names another place", path)
		}
	}
	if code, _, _ := ask(t, "GET", url+"/v1/status", ""); code != 404 {
		t.Errorf("an unknown page is %d", code)
	}
	if code, header, _ := ask(t, "HEAD", url+"/live", ""); code != 200 || header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD of the feed: %d %v", code, header)
	}
}

// No request over TCP can change anything.
func TestWebIsReadOnly(t *testing.T) {
	agent := steady()
	agent.do = func(_ context.Context, cmd Command) (string, error) {
		t.Errorf("the agent is asked to %s", cmd)
		return "", nil
	}
	_, _, url := startWeb(t, agent)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		for _, path := range []string{"/", pathCommand, pathFlush, pathDrain, "/live"} {
			if code, header, _ := ask(t, method, url+path, ""); code != 405 || header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
}

// A request for a foreign name at 127.0.0.1 comes from a foreign web page (DNS
// rebinding).
func TestWebKnowsItsName(t *testing.T) {
	_, _, url := startWeb(t, steady())
	for host, want := range map[string]int{"": 200, "127.0.0.1": 200, "localhost:9480": 200, "[::1]:9480": 200, "evil.example": 421, "evil.example:9480": 421} {
		if code, _, _ := ask(t, "GET", url+"/page.js", host); code != want {
			t.Errorf("as %q: %d, want %d", host, code, want)
		}
	}
	public := onlyHere(&net.TCPAddr{IP: net.IPv4zero, Port: 9480}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	w := &codeWriter{}
	public.ServeHTTP(w, &http.Request{Host: "pbx1.example"})
	if w.code != 0 {
		t.Errorf("a public one answers to its name with %d", w.code)
	}
}

type codeWriter struct{ code int }

func (w *codeWriter) Header() http.Header         { return http.Header{} }
func (w *codeWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *codeWriter) WriteHeader(code int)        { w.code = code }

// reader reads the live feed.
type reader struct {
	t    *testing.T
	body io.ReadCloser
	scan *bufio.Scanner
}

func feedOf(t *testing.T, url string) *reader {
	t.Helper()
	r, err := http.NewRequestWithContext(ctxFor(t), "GET", url+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("feed: %v, %v", resp, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, 1<<20)
	return &reader{t, resp.Body, scan}
}

func (r *reader) next() (doc liveDoc) {
	r.t.Helper()
	for r.scan.Scan() {
		if data, is := strings.CutPrefix(r.scan.Text(), "data: "); is {
			if err := json.Unmarshal([]byte(data), &doc); err != nil {
				r.t.Fatalf("%v in %s", err, data)
			}
			return doc
		}
	}
	r.t.Fatalf("the feed ended: %v", r.scan.Err())
	return doc
}

func TestWebFeed(t *testing.T) {
	agent := steady()
	st, broken := troubled(), make(chan struct{})
	agent.status = func(context.Context) (Status, error) {
		select {
		case <-broken:
			return Status{}, errors.New("the agent\nis ending")
		default:
			return st, nil
		}
	}
	_, journal, url := startWeb(t, agent)
	journal.Add(Event{Kind: KindAgent, Text: "started"})
	feed := feedOf(t, url)
	first := feed.next()
	if first.Status == nil || first.Status.Cluster != "pbx-dc1" || len(first.Unusual) != len(st.unusual()) || len(first.Events) != 1 || first.Version != "v1.2.3" {
		t.Fatalf("first %+v", first)
	}
	if again := feed.next(); again.Status == nil || len(again.Events) != 0 {
		t.Errorf("then, without news, %+v", again)
	}
	e := Event{Kind: Takeover, VIP: "vip1", From: "pbx2", To: "pbx1", Reason: "crash"}
	e.Add("noticed", 0)
	journal.Add(e)
	for {
		doc := feed.next()
		if len(doc.Events) == 0 {
			continue
		}
		if len(doc.Events) != 1 || doc.Events[0].ID != 2 || doc.Events[0].Felt == nil {
			t.Errorf("a takeover comes as %+v", doc.Events)
		}
		break
	}
	close(broken)
	for {
		if doc := feed.next(); doc.Status == nil {
			if doc.Error != "the agent is ending" {
				t.Errorf("without a status: %+v", doc)
			}
			return
		}
	}
}

func TestWebFeedsAreCounted(t *testing.T) {
	web, _, url := startWeb(t, steady())
	var feeds []*reader
	for range maxFollowers {
		feed := feedOf(t, url)
		feed.next()
		feeds = append(feeds, feed)
	}
	if code, _, _ := ask(t, "GET", url+"/live", ""); code != 503 {
		t.Errorf("one too many: %d", code)
	}
	feeds[0].body.Close()
	eventually(t, "a place is free", func() bool { return len(web.followers) < maxFollowers })
	feedOf(t, url).next()
}

// However many clients ask, the agent is asked at most ten times a second.
func TestWebAsksTheAgentSeldom(t *testing.T) {
	agent := steady()
	var asked atomic.Int64
	agent.status = func(context.Context) (Status, error) {
		asked.Add(1)
		return example(), nil
	}
	_, _, url := startWeb(t, agent)
	began := time.Now()
	for range 200 {
		if code, _, _ := ask(t, "GET", url+"/metrics", ""); code != 200 {
			t.Fatalf("metrics: %d", code)
		}
	}
	if most := int64(time.Since(began)/liveLeast) + 1; asked.Load() > most {
		t.Errorf("asked %d times, at most %d", asked.Load(), most)
	}
}
