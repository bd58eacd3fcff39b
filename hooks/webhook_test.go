package hooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWebhook(t *testing.T) {
	var body, signature, method, kind string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body, signature, method, kind = string(text), r.Header.Get("X-Sipalive-Signature"), r.Method, r.Header.Get("Content-Type")
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "noted\n")
	}))
	defer srv.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("s3cret\n"), 0o600))
	r := newTestRunner(t, Options{})
	j := newJournal()
	ev := Event{VIP: "vip1", Address: "192.0.2.101", Node: "pbx2", Previous: "pbx1", Cause: Crash, Reason: "crash"}
	r.Start("a", Acquire, 7, ev, []Action{{On: Acquire, HTTP: srv.URL + "/hook/T0/s3cret?token=x", SecretFile: secret}}, j.report, j.done)
	o := j.wait(t)[0]
	if !o.OK || o.Output != "noted\n" || o.Action != "http "+srv.URL {
		t.Errorf("outcome %+v", o)
	}
	want := `{"event":"acquire","vip":"vip1","address":"192.0.2.101","node":"pbx2","previous":"pbx1","epoch":7,"cause":"crash","reason":"crash"}`
	if d := cmp.Diff(want, body); d != "" || method != "POST" || kind != "application/json" {
		t.Errorf("%s %s (-want +got):\n%s", method, kind, d)
	}
	mac := hmac.New(sha256.New, []byte("s3cret"))
	io.WriteString(mac, want)
	if signature != hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signature %s", signature)
	}
}

func TestWebhookIsRetried(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "later", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	r := newTestRunner(t, Options{Backoff: func(int) time.Duration { return time.Millisecond }})
	if o := runOne(t, r, Action{HTTP: srv.URL, Retries: 3}); !o.OK || o.Attempts != 3 {
		t.Errorf("%+v", o)
	}
}

func TestWebhookFailures(t *testing.T) {
	hang := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { t.Error("a redirection was followed") })
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { <-hang })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		for { // until the client stops reading
			if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
				return
			}
		}
	})
	srv, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer srv.Close()
	defer secure.Close()
	defer close(hang)
	r := newTestRunner(t, Options{})
	for _, tt := range []struct {
		action Action
		want   string
	}{
		{Action{HTTP: srv.URL + "/moved"}, "http " + srv.URL + ": it answers 307 Temporary Redirect"},
		{Action{HTTP: srv.URL + "/none?secret=1"}, "http " + srv.URL + ": it answers 404 Not Found"},
		{Action{HTTP: srv.URL + "/hang", Timeout: 200 * time.Millisecond}, "http " + srv.URL + ": no answer within 200ms"},
		{Action{HTTP: srv.URL + "/flood", Timeout: patience}, "http " + srv.URL + ": it answers 500 Internal Server Error"},
		{Action{HTTP: secure.URL}, "http " + secure.URL + ": tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{Action{HTTP: "http://127.0.0.1:1/T0/s3cret"}, "http http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
		{Action{HTTP: srv.URL, SecretFile: "/no/such"}, "http " + srv.URL + ": no secret: open /no/such: no such file or directory"},
	} {
		if o := runOne(t, r, tt.action); o.OK || o.Err != tt.want {
			t.Errorf("got  %s\nwant %s", o.Err, tt.want)
		}
	}
}
