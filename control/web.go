package control

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

//go:embed page
var page embed.FS

// Web serves over TCP what people and Prometheus may read: the status page, its live feed
// and the metrics. Nothing it serves can change anything.
type Web struct {
	server    *Server // the control socket's server, whose answers are shown here
	version   string
	followers chan struct{} // one element per reader of the feed

	mu     sync.Mutex // held while the agent is asked: others wait for the same answer
	asked  time.Time
	status Status
	err    error
}

// NewWeb returns a Web that shows what the control socket's server knows, and the
// version.
func NewWeb(s *Server, version string) *Web {
	return &Web{server: s, version: version, followers: make(chan struct{}, maxFollowers)}
}

// glance returns the agent's status, at most liveLeast old. So the agent's loop is asked
// at most ten times a second, however many clients ask over the network. The status is
// shared and must not be changed.
func (w *Web) glance() (Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked.IsZero() || time.Since(w.asked) >= liveLeast {
		w.status, w.err = w.server.statusNow(context.Background())
		w.asked = time.Now()
	}
	return w.status, w.err
}

// Serve answers until ctx ends, and closes l. It returns nil if ctx ended, otherwise why
// the socket failed. It may be called again.
func (w *Web) Serve(ctx context.Context, l net.Listener) error {
	live, end := context.WithCancel(context.Background())
	defer end()
	srv := &http.Server{
		Handler:        w.handler(live, l.Addr()),
		ReadTimeout:    readTimeout,
		WriteTimeout:   readTimeout + writeTimeout, // the feed has a deadline for each piece
		IdleTimeout:    time.Minute,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(netutil.LimitListener(l, maxConns)) }()
	select {
	case err := <-failed:
		end()
		srv.Close()
		return err
	case <-ctx.Done():
	}
	end()
	grace, cancel := context.WithTimeout(context.Background(), w.server.drain)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
	<-failed
	return nil
}

func (w *Web) handler(live context.Context, at net.Addr) http.Handler {
	mux := http.NewServeMux()
	for path, file := range map[string]string{"/{$}": "page/index.html", "/page.css": "page/page.css", "/page.js": "page/page.js"} {
		body, err := page.ReadFile(file)
		if err != nil {
			panic(err) // embedded
		}
		mux.HandleFunc(path, func(rw http.ResponseWriter, r *http.Request) {
			http.ServeContent(rw, r, file, time.Time{}, bytes.NewReader(body))
		})
	}
	mux.HandleFunc("/live", func(rw http.ResponseWriter, r *http.Request) { w.feed(live, rw, r) })
	mux.Handle("/metrics", promhttp.HandlerFor(newRegistry(w.glance, w.server.journal), promhttp.HandlerOpts{}))
	return onlyRead(onlyHere(at, mux))
}

// onlyRead refuses methods that could change something. It tells browsers to load nothing
// from elsewhere, not to show the page in a frame, and to store nothing.
func onlyRead(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cache-Control":                "no-store",
		} {
			rw.Header().Set(name, value)
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			rw.Header().Set("Allow", "GET, HEAD")
			http.Error(rw, "read-only: use GET", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// onlyHere makes a server on loopback refuse requests under a foreign host name.
// Otherwise a web page elsewhere could point its own name at 127.0.0.1 and read the
// answers with the browser of a user who has access (DNS rebinding).
func onlyHere(at net.Addr, next http.Handler) http.Handler {
	listen, err := netip.ParseAddrPort(at.String())
	if err != nil || !listen.Addr().IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil && host != "localhost" {
			http.Error(rw, "ask for it by address or as localhost", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// liveEvents is how many events the feed first sends; liveLeast and liveMost are the
// shortest and the longest time between two messages.
const (
	liveEvents = 100
	liveLeast  = 100 * time.Millisecond
	liveMost   = time.Second
)

// liveDoc is one message of the live feed.
type liveDoc struct {
	Version string      `json:"version"`
	Status  *Status     `json:"status,omitempty"`
	Unusual []string    `json:"unusual"`
	Events  []liveEvent `json:"events,omitempty"` // new and changed ones; the first message has the latest ones and at least maxTakeovers takeovers, as far as known
	Error   string      `json:"error,omitempty"`  // why there is no status
}

type liveEvent struct {
	Event
	Felt *Felt `json:"felt,omitempty"`
}

// feed sends server-sent events until the reader goes away or is too slow, or the server
// stops. It sends the status about once a second, and at once when something happens.
func (w *Web) feed(live context.Context, rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	select {
	case w.followers <- struct{}{}:
		defer func() { <-w.followers }()
	default:
		http.Error(rw, strconv.Itoa(maxFollowers)+" others watch already", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(live, cancel)()
	rc := http.NewResponseController(rw)
	events, since := w.server.journal.opening(liveEvents, maxTakeovers)
	for ctx.Err() == nil {
		if err := w.sendLive(rw, rc, events); err != nil {
			return
		}
		pause(ctx, liveLeast)
		wait, stop := context.WithTimeout(ctx, liveMost-liveLeast)
		events, since, _ = w.server.journal.wait(wait, since)
		stop()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *Web) sendLive(rw io.Writer, rc *http.ResponseController, events []Event) error {
	doc := liveDoc{Version: w.version, Unusual: []string{}}
	for _, e := range events {
		doc.Events = append(doc.Events, liveEvent{e, e.felt()})
	}
	switch st, err := w.glance(); {
	case errors.Is(err, context.DeadlineExceeded):
		doc.Error = "the agent's loop did not answer in time"
	case err != nil:
		doc.Error = oneLine(err.Error())
	default:
		doc.Status, doc.Unusual = &st, append(doc.Unusual, st.unusual()...)
		st.Counters = nil // the metrics have them
	}
	body, err := encode(doc)
	if err != nil {
		return err
	}
	if err := rc.SetWriteDeadline(time.Now().Add(w.server.write)); err != nil {
		return err
	}
	if _, err := io.WriteString(rw, "data: "+string(body)+"\n"); err != nil {
		return err
	}
	return rc.Flush()
}
