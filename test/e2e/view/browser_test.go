package view

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sipalive/test/lab"
)

// browser is a headless Chromium with one page on a host of the lab. The test talks to it
// by its DevTools protocol over a pair of pipes: one JSON document after another, each
// ended by a zero byte.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu      sync.Mutex
	last    int
	answers map[int]chan answer
	asked   []string // the addresses that the page requested
	errors  []string // the errors that the page reported
}

type answer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// openBrowser opens url in a browser on a host. The browser ends with the test.
func openBrowser(t *testing.T, h *lab.Host, url string) *browser {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("chromium-headless-shell", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--no-first-run", "--user-data-dir="+dir, "about:blank")
	in, to := pipe(t)
	from, out := pipe(t)
	complaints, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer complaints.Close()
	cmd.ExtraFiles, cmd.Stderr = []*os.File{in, out}, complaints // descriptors 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.Do(cmd.Start); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	in.Close()
	out.Close()
	b := &browser{t: t, to: to, answers: map[int]chan answer{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.listen(from)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed
		to.Close()
		<-ended
		from.Close()
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Network", "Runtime", "Log", "Page"} {
		b.call(domain+".enable", nil, nil)
	}
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	return b
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func (b *browser) listen(from *os.File) {
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadString(0)
		if err != nil {
			return
		}
		var a answer
		if err := json.Unmarshal([]byte(strings.TrimSuffix(text, "\x00")), &a); err != nil {
			continue
		}
		b.mu.Lock()
		if ch := b.answers[a.ID]; a.ID != 0 && ch != nil {
			delete(b.answers, a.ID)
			ch <- a
		}
		b.happened(a)
		b.mu.Unlock()
	}
}

func (b *browser) happened(a answer) {
	switch a.Method {
	case "Network.requestWillBeSent":
		var p struct{ Request struct{ URL string } }
		_ = json.Unmarshal(a.Params, &p)
		b.asked = append(b.asked, p.Request.URL)
	case "Runtime.exceptionThrown", "Log.entryAdded":
		b.errors = append(b.errors, string(a.Params))
	}
}

func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.mu.Lock()
	b.last++
	id, ch := b.last, make(chan answer, 1)
	b.answers[id] = ch
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	select {
	case a := <-ch:
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(a.Result, result); err != nil {
				b.t.Fatalf("%s: %v in %s", method, err, a.Result)
			}
		}
	case <-time.After(patience):
		b.t.Fatalf("%s: no answer from the browser", method)
	}
}

// eval returns the value of an expression on the page.
func (b *browser) eval(expression string, into any) error {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	if r.Result.Value == nil {
		return fmt.Errorf("%s: undefined", expression)
	}
	return json.Unmarshal(r.Result.Value, into)
}

// shows waits until an expression is true.
func (b *browser) shows(what, expression string) {
	b.t.Helper()
	wait(b.t, "the page shows "+what, func() error {
		var yes bool
		if err := b.eval(expression, &yes); err != nil {
			return err
		}
		if !yes {
			var text string
			_ = b.eval("document.body.innerText", &text)
			return fmt.Errorf("not in: %s", text)
		}
		return nil
	})
}

// screen is a device on which the page is shown.
type screen struct {
	name          string
	width, height int
	mobile        bool
	scheme        string // light or dark
}

func (b *browser) on(s screen) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": s.width, "height": s.height, "deviceScaleFactor": 1, "mobile": s.mobile}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": s.scheme}}}, nil)
}

// picture stores a picture of the whole page among the test's artifacts.
func (b *browser) picture(name string) {
	b.t.Helper()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	path := filepath.Join(b.t.ArtifactDir(), name+".png")
	if err := os.WriteFile(path, png, 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("%s, %d bytes", path, len(png))
}
