package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sipalive/eventsocket/recorded"
)

// answers returns what FreeSWITCH answered to a command in a recording, byte for byte.
func answers(t *testing.T, file, command string) (said []string) {
	t.Helper()
	steps := recorded.Load(t, file)
	for i, s := range steps[:len(steps)-1] {
		if s.Client == "api "+command+"\n\n" {
			said = append(said, steps[i+1].Server)
		}
	}
	if len(said) == 0 {
		t.Fatalf("%s: no %s", file, command)
	}
	return said
}

// body frames an API answer that is in no recording.
func body(text string) string {
	return fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(text), text)
}

// script is a FreeSWITCH with recorded answers. Each command gets its next answer; the
// last one is repeated.
type script struct {
	t    *testing.T
	mu   sync.Mutex
	says map[string][]string
	got  []string
}

func (s *script) serve(conn net.Conn) error {
	login := recorded.Load(s.t, "auth-ok-status.txt")[:3]
	br := bufio.NewReader(conn)
	if _, err := io.WriteString(conn, login[0].Server); err != nil {
		return err
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return nil
		}
		if _, err := br.ReadString('\n'); err != nil {
			return nil
		}
		answer := login[2].Server
		if command, is := strings.CutPrefix(strings.TrimSpace(line), "api "); is {
			if answer, err = s.answer(command); err != nil {
				return err
			}
		} else if line+"\n" != login[1].Client {
			return fmt.Errorf("client sent %q", line)
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return nil
		}
	}
}

func (s *script) answer(command string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, command)
	said := s.says[command]
	if len(said) == 0 {
		return "", fmt.Errorf("nothing recorded for %q", command)
	}
	if len(said) > 1 {
		s.says[command] = said[1:]
	}
	return said[0], nil
}

// fake runs an action against a script without real waits and returns what it would have
// waited for. options decides whether a probe with OPTIONS is answered.
func fake(t *testing.T, s *script, phase Phase, timeout time.Duration, options func(netip.AddrPort) error, commands ...string) (Outcome, []time.Duration) {
	t.Helper()
	s.t = t
	var waited []time.Duration
	address := recorded.Serve(t, s.serve)
	r := newTestRunner(t, Options{FreeSWITCHAddress: address, FreeSWITCHPassword: clueCon,
		Wait:    func(_ context.Context, d time.Duration) error { waited = append(waited, d); return nil },
		Answers: func(_ context.Context, at netip.AddrPort, _ string) error { return options(at) }})
	j := newJournal()
	r.Start("vip1", phase, 1, Event{}, []Action{{On: phase, FreeSWITCH: commands, Timeout: timeout}}, j.report, j.done)
	o := j.wait(t)[0]
	o.Err = strings.TrimPrefix(o.Err, "freeswitch "+address+": ")
	return o, waited
}

const (
	start1 = "sofia profile vip1 start"
	list   = "sofia xmlstatus"
)

// TestProfileStart: neither "started successfully" nor RUNNING on its own is enough.
func TestProfileStart(t *testing.T) {
	missing := answers(t, "profile-start-says-success-but-address-missing.txt", list)
	running := answers(t, "sofia-xmlstatus.txt", list)
	started := answers(t, "profile-start-already-running.txt", start1)
	vip1 := netip.MustParseAddrPort("10.77.0.101:5060")
	asked := 0
	o, waited := fake(t, &script{says: map[string][]string{list: slices.Concat(missing, missing, missing, running), start1: started}}, Acquire, patience,
		func(at netip.AddrPort) error {
			if asked++; at != vip1 || asked < 3 {
				return fmt.Errorf("%v: connection refused", at)
			}
			return nil
		}, "profile-start vip1")
	if !o.OK || o.Note != "" || o.Output != "> "+start1+"\nReload XML [Success]\nvip1 started successfully\n" {
		t.Errorf("outcome %+v", o)
	}
	if asked != 3 || len(waited) != 5 {
		t.Errorf("OPTIONS asked %d times, waited %v", asked, waited)
	}
}

// TestUserAgentAfterAReload: OPTIONS of an action use the User-Agent of the current file.
func TestUserAgentAfterAReload(t *testing.T) {
	s := &script{t: t, says: map[string][]string{list: answers(t, "sofia-xmlstatus.txt", list)}}
	var names []string
	r := newTestRunner(t, Options{FreeSWITCHAddress: recorded.Serve(t, s.serve), FreeSWITCHPassword: clueCon, UserAgent: "before",
		Answers: func(_ context.Context, _ netip.AddrPort, userAgent string) error {
			names = append(names, userAgent)
			return nil
		}})
	for range 2 {
		j := newJournal()
		r.Start("vip1", Acquire, 1, Event{}, []Action{{On: Acquire, FreeSWITCH: []string{"profile-start vip1"}, Timeout: patience}}, j.report, j.done)
		if o := j.wait(t)[0]; !o.OK {
			t.Fatalf("%+v", o)
		}
		r.SetUserAgent("after")
	}
	if len(names) != 2 || names[0] != "before" || names[1] != "after" {
		t.Errorf("asked as %q", names)
	}
}

// TestProfileAmongMany: with 2000 registrations at carriers the list is longer than what
// is kept of an answer for people. The profile at its end is found all the same.
func TestProfileAmongMany(t *testing.T) {
	recorded := answers(t, "sofia-xmlstatus.txt", list)[0]
	_, text, _ := strings.Cut(recorded, "\n\n")
	head, profiles, _ := strings.Cut(text, "<profiles>\n")
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "<gateway>\n<name>carrier%d</name>\n<type>gateway</type>\n<data>sip:user%[1]d@sip.carrier.example.net</data>\n<state>REGED</state>\n</gateway>\n", i)
	}
	long := head + "<profiles>\n" + b.String() + profiles
	t.Logf("%d bytes", len(long))
	o, waited := fake(t, &script{says: map[string][]string{list: {body(long)}}}, Acquire, patience, func(netip.AddrPort) error { return nil }, "profile-start vip1")
	if !o.OK || len(waited) != 0 || len(long) < 4*64<<10 {
		t.Errorf("%+v, waited %v", o, waited)
	}

	beyond := body(head + "<profiles>\n" + strings.Repeat(b.String(), 8<<20/b.Len()+1) + profiles)
	o, _ = fake(t, &script{says: map[string][]string{list: {beyond}}}, Acquire, patience, func(netip.AddrPort) error { return nil }, "profile-start vip1")
	if o.OK || !strings.Contains(o.Err, "is too long (at most 8388608)") {
		t.Errorf("beyond all measure: %+v", o)
	}
}

func TestProfileStartedBeforehandCostsNothing(t *testing.T) {
	s := &script{says: map[string][]string{list: answers(t, "sofia-xmlstatus.txt", list)}}
	o, waited := fake(t, s, Acquire, patience, func(netip.AddrPort) error { return nil }, "profile-start vip1")
	if !o.OK || len(waited) != 0 || len(s.got) != 1 {
		t.Errorf("outcome %+v after %q, waited %v", o, s.got, waited)
	}
}

func TestProfileStartOfAnUnknownOne(t *testing.T) {
	s := &script{says: map[string][]string{
		list:                         answers(t, "sofia-xmlstatus.txt", list),
		"sofia profile nosuch start": answers(t, "profile-unknown.txt", "sofia profile nosuch start"),
	}}
	o, _ := fake(t, s, Acquire, patience, func(netip.AddrPort) error { return nil }, "profile-start nosuch")
	if o.OK || o.Err != "profile-start nosuch: Failure starting nosuch" {
		t.Errorf("outcome %+v", o)
	}
}

// TestProfileStartGivesUp: a bind that fails for good is retried now and then, and
// reported as what it is.
func TestProfileStartGivesUp(t *testing.T) {
	start2 := "sofia profile vip2 start"
	file := "profile-start-says-success-but-address-missing.txt"
	s := &script{says: map[string][]string{list: answers(t, file, list), start2: answers(t, file, start2)}}
	o, waited := fake(t, s, Acquire, time.Second, func(netip.AddrPort) error { return nil }, "profile-start vip2")
	if want := "profile-start vip2: vip2 is not running (is its address here, or net.ipv4.ip_nonlocal_bind set?)"; o.OK || o.Err != want {
		t.Errorf("got  %s\nwant %s", o.Err, want)
	}
	starts := 0
	for _, c := range s.got {
		if c == start2 {
			starts++
		}
	}
	per := int(profileAgain / profileEvery)
	if want := 1 + len(waited)/per; starts < want-1 || starts > want+1 || starts < 2 {
		t.Errorf("started %d times in %d looks", starts, len(waited))
	}
}

func TestProfileThatRunsAndDoesNotAnswer(t *testing.T) {
	s := &script{says: map[string][]string{list: answers(t, "sofia-xmlstatus.txt", list)}}
	o, _ := fake(t, s, Acquire, time.Second, func(at netip.AddrPort) error { return errors.New("no answer from " + at.String()) }, "profile-start vip1")
	if o.OK || o.Err != "profile-start vip1: vip1 runs, but no answer from 10.77.0.101:5060" {
		t.Errorf("outcome %+v", o)
	}
}

// TestProfileStartOnTheSuccessor: before the address is here, OPTIONS would reach another
// node.
func TestProfileStartOnTheSuccessor(t *testing.T) {
	s := &script{says: map[string][]string{list: answers(t, "sofia-xmlstatus.txt", list)}}
	o, _ := fake(t, s, Prepare, patience, func(at netip.AddrPort) error { return errors.New("asked " + at.String()) }, "profile-start vip1")
	if !o.OK {
		t.Errorf("outcome %+v", o)
	}
}

// TestTooYoungToBeStopped: the action waits as long as FreeSWITCH asks, then tries again.
func TestTooYoungToBeStopped(t *testing.T) {
	stop2 := "sofia profile vip2 stop"
	young := answers(t, "profile-stop-refused-within-10s-of-start.txt", stop2)
	stopped := answers(t, "profile-stop-ok-then-start-collides.txt", stop2)
	s := &script{says: map[string][]string{stop2: slices.Concat(young, stopped)}}
	o, waited := fake(t, s, Retire, patience, nil, stop2)
	if d := cmp.Diff([]time.Duration{5 * time.Second}, waited); d != "" || !o.OK {
		t.Errorf("outcome %+v, waited (-want +got):\n%s", o, d)
	}
	o, waited = fake(t, &script{says: map[string][]string{stop2: young}}, Retire, 2*time.Second, nil, stop2)
	if o.OK || len(waited) != 0 || o.Err != stop2+": Profile vip2 must be up for at least 10 seconds to stop/restart." {
		t.Errorf("without the time to wait: %+v, waited %v", o, waited)
	}
}

func TestPauseIsProven(t *testing.T) {
	file := "pause-resume-ready.txt"
	check := answers(t, file, "fsctl pause_check") // false, true after pause, false after resume
	for _, tt := range []struct{ verb, check, err string }{
		{"pause", check[1], ""},
		{"resume", check[2], ""},
		{"pause", check[2], "pause: fsctl pause_check says false after it, not true"},
	} {
		s := &script{says: map[string][]string{"fsctl " + tt.verb: answers(t, file, "fsctl "+tt.verb), "fsctl pause_check": {tt.check}}}
		if o, _ := fake(t, s, Release, patience, nil, tt.verb); o.OK != (tt.err == "") || o.Err != tt.err {
			t.Errorf("%s: %+v", tt.verb, o)
		}
	}
}

func TestVerbsThatAreOneCommand(t *testing.T) {
	none := answers(t, "recover-nothing.txt", "sofia profile vip1 recover")
	unknown := answers(t, "profile-unknown.txt", "sofia profile nosuch recover")
	for _, tt := range []struct{ verb, command, answer, err string }{
		{"profile-recover vip1", "sofia profile vip1 recover", none[0], ""},
		{"profile-recover nosuch", "sofia profile nosuch recover", unknown[0], "profile-recover nosuch: Invalid Profile [nosuch]"},
		{"standby-on", "sofia global standby on", body("+OK\n"), ""},
		{"standby-off", "sofia global standby off", body("+OK\n"), ""},
	} {
		s := &script{says: map[string][]string{tt.command: {tt.answer}}}
		if o, _ := fake(t, s, Acquire, patience, nil, tt.verb); o.OK != (tt.err == "") || o.Err != tt.err {
			t.Errorf("%s: %+v", tt.verb, o)
		}
	}
}

func TestFlushWithoutMemcache(t *testing.T) {
	s := &script{says: map[string][]string{
		"xml_flush_cache": {body("+OK cleared 3 entries\n")}, // as in mod_commands.c
		"memcache flush":  answers(t, "memcache-module-missing.txt", "memcache flush"),
	}}
	o, _ := fake(t, s, Acquire, patience, nil, "flush")
	if !o.OK || o.Note != "mod_memcache is not loaded: only FreeSWITCH's XML cache was flushed" {
		t.Errorf("outcome %+v", o)
	}
}

func TestCheckVerbs(t *testing.T) {
	for command, want := range map[string]string{
		"profile-start":        "freeswitch profile-start: takes one NAME, e.g. profile-start vip1",
		"profile-recover a b":  "freeswitch profile-recover a b: takes one NAME, e.g. profile-recover vip1",
		"pause now":            "freeswitch pause now: takes no argument",
		"profile-recover vip1": "",
		"standby-on":           "",
	} {
		got := ""
		if err := checkFreeSWITCH(command); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

func TestXMLStatusThatIsNone(t *testing.T) {
	s := &script{says: map[string][]string{list: {body("<?xml version=\"1.0\" encoding=\"KOI8-R\"?>\n<profiles></profiles>\n")}}}
	o, _ := fake(t, s, Acquire, patience, nil, "profile-start vip1")
	if o.OK || !strings.Contains(o.Err, "sofia xmlstatus: not understood: ") {
		t.Errorf("outcome %+v", o)
	}
}
