package realinput

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// recoverTimeout is the timeout of vip1's action.
const recoverTimeout = time.Second

// recording is the dialogue of a takeover with FreeSWITCH 1.11.1.
const recording = "../../../eventsocket/recorded/freeswitch-esl/recover-nothing.txt"

// TestEventSocket: vip1's takeover asks FreeSWITCH to recover its calls, vip2's does
// something else. However the event socket behaves, the address comes first, the action
// takes at most its timeout, and vip2 is not affected.
func TestEventSocket(t *testing.T) {
	dir := t.TempDir()
	how, password := filepath.Join(dir, "behaviour"), filepath.Join(dir, "password")
	must(t, os.WriteFile(password, []byte("ClueCon\n"), 0o600))
	must(t, os.WriteFile(how, []byte("play"), 0o600))
	s := launch(t, cluster.Options{
		TOML: swift + fmt.Sprintf("[freeswitch]\naddress = \"127.0.0.1:8021\"\npassword_file = %q\n", password),
		VIP: func(i int) string {
			if i == 1 {
				return fmt.Sprintf("[[vip.action]]\non = \"acquire\"\nfreeswitch = [\"sofia profile vip1 recover\"]\ntimeout = %q\n", recoverTimeout)
			}
			return "[[vip.action]]\non = \"acquire\"\nexec = [\"/bin/echo\", \"taken\"]\n"
		},
	})
	path, err := filepath.Abs(recording)
	must(t, err)
	var switches []*lab.Process
	for _, h := range s.Nodes() {
		p, err := h.Start(role("freeswitch", path, how))
		must(t, err)
		switches = append(switches, p)
	}
	s.rests(t)
	const hung, gone = "no answer within 1s", "connection refused"
	for _, c := range []struct {
		how          string
		ok           bool
		output, fail string
		least, most  time.Duration
	}{
		{"play", true, "No sessions to recover.", "", 0, recoverTimeout / 2},
		{"drip", true, "No sessions to recover.", "", 100 * time.Millisecond, recoverTimeout},
		{"hang", false, "> sofia profile vip1 recover", hung, recoverTimeout, recoverTimeout + 500*time.Millisecond},
		{"refuse", false, "", gone, 0, recoverTimeout / 2},
		{"disconnect", false, "> sofia profile vip1 recover", "in the middle of an answer", 0, recoverTimeout / 2},
		{"play", true, "No sessions to recover.", "", 0, recoverTimeout / 2}, // the bad behaviours before left nothing behind
	} {
		t.Run(c.how, func(t *testing.T) {
			must(t, os.WriteFile(how, []byte(c.how), 0o600))
			watch(100 * time.Millisecond) // while nobody connects, the server reads the file every 10 ms
			m, at := s.bothMove(t)
			if m.OK == nil || *m.OK != c.ok || !strings.Contains(m.Output, c.output) || !strings.Contains(m.Err, c.fail) {
				t.Errorf("events say %+v, want ok %v, output with %q and error with %q", m, c.ok, c.output, c.fail)
			}
			if took := time.Duration(m.Took); took < c.least || took > c.most {
				t.Errorf("the action took %v, want %v to %v", took, c.least, c.most)
			}
			t.Logf("%s: ok %v, %v, %q, %q", m.Mark, *m.OK, time.Duration(m.Took), m.Output, m.Err)
			for v := range s.VIPs {
				s.silent(t, v, at, 200*time.Millisecond)
			}
		})
	}
	for _, p := range switches {
		if out := p.Output(); out != "" {
			t.Errorf("%s: %s", p.Log, out)
		}
	}
}

// bothMove moves both VIPs to one node, one right after the other, and returns how vip1's
// action went. vip2's action must succeed at once.
func (s *site) bothMove(t *testing.T) (recovered control.Mark, at time.Duration) {
	t.Helper()
	to := ""
	for _, h := range s.Nodes() {
		if h.Name != s.holder(t, 0) && h.Name != s.holder(t, 1) {
			to = h.Name
		}
	}
	at = lab.Now()
	s.move(t, 0, to)
	s.move(t, 1, to)
	for v := range s.VIPs {
		s.hears(t, v, to, at)
	}
	first, second := s.takeover(t, s.Index(to), 0), s.takeover(t, s.Index(to), 1)
	for v, e := range []control.Event{first, second} {
		if e.Outcome != "done" || e.Reason != "move" {
			t.Errorf("%s: %q by %q, want a move that is done", cluster.VIPName(v), e.Outcome, e.Reason)
		}
	}
	echo := mark(t, second, "exec")
	if echo.OK == nil || !*echo.OK || strings.TrimSpace(echo.Output) != "taken" || time.Duration(second.Timeline[len(second.Timeline)-1].At) > recoverTimeout*3/4 {
		t.Errorf("vip2's chain was in the way of vip1's: %+v", second)
	}
	return mark(t, first, "freeswitch"), at
}
