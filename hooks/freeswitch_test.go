package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sipalive/eventsocket/recorded"
)

func TestCheckFreeSWITCH(t *testing.T) {
	refused := map[string]string{
		"sofia recover":                "freeswitch sofia recover: takes the calls of every profile and node (use sofia profile NAME recover)",
		" SOFIA \t Recover":            "takes the calls of every profile",
		"sofia recover flush":          "takes the calls of every profile",
		"fsctl recover":                "takes the calls of every profile",
		"bgapi sofia recover":          "takes the calls of every profile",
		"expand fsctl  recover":        "takes the calls of every profile",
		"":                             "freeswitch: an empty command",
		" ":                            "freeswitch: an empty command",
		"status\n\napi fsctl shutdown": "freeswitch status api fsctl shutdown: a newline in a command (give several commands as several strings)",
		"status\r":                     "a newline in a command",
	}
	for command, want := range refused {
		if err := checkFreeSWITCH(command); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", command, err)
		}
	}
	for _, command := range []string{"sofia profile vip1 recover", "sofia status", "lua recover.lua", "sofia profile recover start"} {
		if err := checkFreeSWITCH(command); err != nil {
			t.Errorf("%q: %v", command, err)
		}
	}
}

func clueCon() (string, error) { return "ClueCon\n", nil }

// ask runs one freeswitch action against the address.
func ask(t *testing.T, address string, timeout time.Duration, commands ...string) Outcome {
	t.Helper()
	r := newTestRunner(t, Options{FreeSWITCHAddress: address, FreeSWITCHPassword: clueCon})
	o := runOne(t, r, Action{FreeSWITCH: commands, Timeout: timeout})
	o.Err = strings.TrimPrefix(o.Err, "freeswitch "+address+": ")
	if strings.Contains(o.Err+o.Note+o.Output, "ClueCon") {
		t.Errorf("the password is in %+v", o)
	}
	return o
}

// askFor expects an error that says how far the dialogue came within the timeout. On a
// machine that stalls it comes less far, so there are several attempts.
func askFor(t *testing.T, want, address string, timeout time.Duration, commands ...string) (o Outcome) {
	t.Helper()
	for range 5 {
		if o = ask(t, address, timeout, commands...); o.Err == want {
			return o
		}
	}
	t.Errorf("got  %s\nwant %s", o.Err, want)
	return o
}

func TestFreeSWITCHActions(t *testing.T) {
	const unproven = "sofia profile vip2 start: said of a failed bind too, only an answered OPTIONS proves the profile"
	tests := []struct {
		file              string
		commands          []string
		err, note, output string
	}{
		{"recover-nothing.txt", []string{"sofia profile vip1 recover"},
			"", "", "> sofia profile vip1 recover\nNo sessions to recover.\n"},
		{"profile-stop-ok-then-start-collides.txt", []string{"sofia profile vip2 stop", "sofia profile vip2 start"},
			"", unproven, "> sofia profile vip2 stop\nReload XML [Success]\nstopping: vip2\n> sofia profile vip2 start\nReload XML [Success]\nvip2 started successfully\n"},
		{"profile-start-says-success-but-address-missing.txt", []string{"sofia profile vip2 start", "sofia status profile vip2", "sofia xmlstatus"},
			"sofia status profile vip2: Invalid Profile!", unproven,
			"> sofia profile vip2 start\nReload XML [Success]\nvip2 started successfully\n> sofia status profile vip2\nInvalid Profile!\n"},
		{"profile-unknown.txt", []string{"sofia profile nosuch start", "sofia profile nosuch stop"},
			"sofia profile nosuch start: Failure starting nosuch", "", "> sofia profile nosuch start\nReload XML [Success]\nFailure starting nosuch\n"},
		{"memcache-module-missing.txt", []string{"memcache flush"},
			"memcache flush: -ERR memcache Command not found!", "", "> memcache flush\n-ERR memcache Command not found!\n"},
	}
	for _, tt := range tests {
		for _, drip := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/drip=%v", tt.file, drip), func(t *testing.T) {
				address := recorded.Serve(t, recorded.Play(recorded.Load(t, tt.file), drip))
				o := ask(t, address, patience, tt.commands...)
				if o.OK != (tt.err == "") || o.Err != tt.err || o.Note != tt.note || o.Output != tt.output {
					t.Errorf("got  %+v\nwant %+v", o, tt)
				}
			})
		}
	}
}

func TestFreeSWITCHWrongPassword(t *testing.T) {
	steps := recorded.Load(t, "auth-wrong-password.txt")
	steps[1].Client = "auth ClueCon\n\n"
	o := ask(t, recorded.Serve(t, recorded.Play(steps, false)), patience, "status")
	if want := "the password is not accepted (-ERR invalid): see password_file and event_socket.conf.xml"; o.Err != want {
		t.Errorf("got  %s\nwant %s", o.Err, want)
	}
}

// TestFreeSWITCHSlowRecover: "No sessions" after 6 s may mean that there is no database.
func TestFreeSWITCHSlowRecover(t *testing.T) {
	var clock int64
	address := recorded.Serve(t, recorded.Play(recorded.Load(t, "recover-nothing.txt"), false))
	r := newTestRunner(t, Options{FreeSWITCHAddress: address, FreeSWITCHPassword: clueCon,
		Now: func() int64 { clock += 6e9; return clock }})
	o := runOne(t, r, Action{FreeSWITCH: []string{"sofia profile vip1 recover"}})
	if want := "sofia profile vip1 recover: nothing to recover after 6s: is the database reachable?"; !o.OK || o.Note != want {
		t.Errorf("%+v", o)
	}
}

// TestFreeSWITCHGoesAwayAnywhere closes the connection after each byte in turn.
func TestFreeSWITCHGoesAwayAnywhere(t *testing.T) {
	steps := recorded.Load(t, "recover-nothing.txt")
	ends := map[string]func(net.Conn){
		"close": func(c net.Conn) { c.Close() },
		"reset": func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() },
	}
	for name, end := range ends {
		for n := 1; n < recorded.ServerBytes(steps); n++ {
			address := recorded.Serve(t, recorded.CutAfter(steps, n, end))
			o := ask(t, address, patience, "sofia profile vip1 recover")
			told := strings.Contains(o.Err, "closed the connection") || strings.Contains(o.Err, "reset by peer") || strings.Contains(o.Err, "broken pipe")
			if o.OK || !told {
				t.Errorf("%s after %d bytes: %+v", name, n, o)
			}
			if o.Took > 10*time.Second {
				t.Errorf("%s after %d bytes took %s", name, n, o.Took)
			}
		}
	}
}

// TestFreeSWITCHHangs: a FreeSWITCH that freezes, at whatever byte, costs the timeout and
// no more.
func TestFreeSWITCHHangs(t *testing.T) {
	steps := recorded.Load(t, "recover-nothing.txt")
	greeting := len(steps[0].Server)
	accepted := greeting + len(steps[2].Server)
	stages := map[string]struct {
		bytes int
		step  string
	}{
		"no byte":              {0, ""},
		"half the greeting":    {7, ""},
		"after the greeting":   {greeting, ""},
		"half the auth reply":  {greeting + 9, ""},
		"after the auth reply": {accepted, "sofia profile vip1 recover: "},
		"half the header":      {accepted + 20, "sofia profile vip1 recover: "},
		"half the body":        {recorded.ServerBytes(steps) - 5, "sofia profile vip1 recover: "},
	}
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			const timeout = 150 * time.Millisecond
			address := recorded.Serve(t, recorded.CutAfter(steps, stage.bytes, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
			want := stage.step + "no answer within 150ms (frozen, or its database is away?)"
			o := askFor(t, want, address, timeout, "sofia profile vip1 recover")
			if o.Took < timeout || o.Took > 10*time.Second {
				t.Errorf("took %s", o.Took)
			}
		})
	}
}

// answering returns a server that logs the client in and then sends the result of reply
// for each command.
func answering(reply func(conn net.Conn, n int) string) func(net.Conn) error {
	return func(conn net.Conn) error {
		br := bufio.NewReader(conn)
		text := "Content-Type: auth/request\n\n"
		for n := 0; ; n++ {
			if _, err := io.WriteString(conn, text); err != nil {
				return nil
			}
			for range 2 { // a command is one line and an empty line
				if _, err := br.ReadString('\n'); err != nil {
					return nil
				}
			}
			text = "Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
			if n > 0 {
				text = reply(conn, n)
			}
		}
	}
}

func always(text string) func(net.Conn, int) string {
	return func(net.Conn, int) string { return text }
}

const (
	eventFrame = "Content-Length: 22\nContent-Type: text/event-plain\n\nEvent-Name: HEARTBEAT\n"
	logFrame   = "Content-Type: log/data\nContent-Length: 4\n\nlog\n"
	okFrame    = "Content-Type: api/response\nContent-Length: 4\n\n+OK\n"
)

func TestFreeSWITCHAnswers(t *testing.T) {
	tests := map[string]struct{ reply, err string }{
		"events before the answer": {eventFrame + logFrame + eventFrame + okFrame, ""},
		"carriage returns":         {strings.ReplaceAll(okFrame, "\n\n", "\r\n\r\n"), ""},
		"refused by the socket":    {"Content-Type: command/reply\nReply-Text: -ERR command not found\n\n", "status: -ERR command not found"},
		"farewell":                 {"Content-Type: text/disconnect-notice\nContent-Length: 4\n\nbye\n", "status: FreeSWITCH ended the session"},
		"rude":                     {"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n", "status: FreeSWITCH refuses this address (apply-inbound-acl in event_socket.conf.xml)"},
		"second greeting":          {"Content-Type: auth/request\n\n", `status: not an event socket's answer: "auth/request" instead of a reply`},
		"not an event socket":      {"HTTP/1.1 400 Bad Request\r\n\r\n", `status: not an event socket's answer: "HTTP/1.1 400 Bad Request"`},
		"too long":                 {"Content-Type: api/response\nContent-Length: 9000000\n\n", "status: an answer of 9000000 bytes is too long (at most 8388608)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := ask(t, recorded.Serve(t, answering(always(tt.reply))), patience, "status")
			if o.Err != tt.err || o.OK != (tt.err == "") {
				t.Errorf("got %+v, want %s", o, tt.err)
			}
		})
	}
}

func TestFreeSWITCHRudeGreeting(t *testing.T) {
	address := recorded.Serve(t, func(conn net.Conn) error {
		_, err := io.WriteString(conn, "Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n")
		return err
	})
	o := ask(t, address, patience, "status")
	if want := "FreeSWITCH refuses this address (apply-inbound-acl in event_socket.conf.xml)"; o.Err != want {
		t.Errorf("got %+v", o)
	}
}

// TestFreeSWITCHLongAnswer: a failure in the part that is kept counts, the rest is
// dropped, and the next answer is still understood.
func TestFreeSWITCHLongAnswer(t *testing.T) {
	body := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB
	address := recorded.Serve(t, answering(func(_ net.Conn, n int) string {
		if n == 1 {
			return fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(body), body)
		}
		return okFrame
	}))
	o := ask(t, address, patience, "show channels", "status")
	if !o.OK || !strings.Contains(o.Output, "[cut: ") || !strings.HasSuffix(o.Output, "> status\n+OK\n") || len(o.Output) > 5000 {
		t.Errorf("%d bytes: %+v", len(o.Output), o)
	}
}

func TestFreeSWITCHEndlessEvents(t *testing.T) {
	address := recorded.Serve(t, answering(func(conn net.Conn, _ int) string {
		for {
			if _, err := io.WriteString(conn, eventFrame); err != nil {
				return ""
			}
		}
	}))
	o := askFor(t, "status: no answer within 200ms (frozen, or its database is away?)", address, 200*time.Millisecond, "status")
	if o.Took > 10*time.Second {
		t.Errorf("%+v", o)
	}
}

// TestFreeSWITCHTimeoutIsForTheWholeList: each answer on its own would be in time.
func TestFreeSWITCHTimeoutIsForTheWholeList(t *testing.T) {
	const each, timeout = 100 * time.Millisecond, 550 * time.Millisecond
	address := recorded.Serve(t, answering(func(net.Conn, int) string {
		time.Sleep(each)
		return okFrame
	}))
	list := make([]string, 20)
	for i := range list {
		list[i] = fmt.Sprintf("sofia status %d", i)
	}
	o := ask(t, address, timeout, list...)
	if o.OK || !strings.HasSuffix(o.Err, ": no answer within 550ms (frozen, or its database is away?)") {
		t.Errorf("%+v", o)
	}
	if answered := strings.Count(o.Output, "+OK"); answered > 5 {
		t.Errorf("%d answers of 100 ms each within %s", answered, timeout)
	}
	if o.Took < timeout || o.Took > 10*time.Second {
		t.Errorf("took %s", o.Took)
	}
}

func TestFreeSWITCHRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	o := ask(t, ln.Addr().String(), patience, "status")
	if !strings.HasSuffix(o.Err, "connection refused (is FreeSWITCH running, mod_event_socket loaded?)") {
		t.Errorf("%+v", o)
	}
}

func TestFreeSWITCHDialHangs(t *testing.T) {
	r := newTestRunner(t, Options{FreeSWITCHAddress: "pbx.invalid:8021", FreeSWITCHPassword: clueCon,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }})
	o := runOne(t, r, Action{FreeSWITCH: []string{"status"}, Timeout: 100 * time.Millisecond})
	if o.Err != "freeswitch pbx.invalid:8021: no answer within 100ms (frozen, or its database is away?)" {
		t.Errorf("%+v", o)
	}
}

// TestFreeSWITCHNotSent: refused commands do not reach the network.
func TestFreeSWITCHNotSent(t *testing.T) {
	file := errors.New("open /etc/sipalive/freeswitch.password: permission denied")
	tests := []struct {
		command  string
		password func() (string, error)
		want     string
	}{
		{"sofia recover", clueCon, "freeswitch sofia recover: takes the calls of every profile and node (use sofia profile NAME recover)"},
		{"status", nil, "freeswitch a:1: no password (set password_file under [freeswitch])"},
		{"status", func() (string, error) { return "", file }, "freeswitch a:1: no password: open /etc/sipalive/freeswitch.password: permission denied"},
		{"status", func() (string, error) { return "a\n\napi fsctl shutdown", nil }, "freeswitch a:1: the password is not one line of text (see password_file)"},
		{"status", func() (string, error) { return "\n", nil }, "freeswitch a:1: the password is not one line of text (see password_file)"},
	}
	for _, tt := range tests {
		r := newTestRunner(t, Options{FreeSWITCHAddress: "a:1", FreeSWITCHPassword: tt.password,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				t.Errorf("%s: dialled", tt.want)
				return nil, errors.New("no")
			}})
		if o := runOne(t, r, Action{FreeSWITCH: []string{tt.command}}); o.OK || o.Err != tt.want {
			t.Errorf("got  %s\nwant %s", o.Err, tt.want)
		}
	}
}

// A reload may move FreeSWITCH to another address and change its password.
func TestFreeSWITCHMoves(t *testing.T) {
	r := newTestRunner(t, Options{FreeSWITCHAddress: "127.0.0.1:1", FreeSWITCHPassword: func() (string, error) { return "old", nil }})
	if o := runOne(t, r, Action{FreeSWITCH: []string{"status"}}); o.OK {
		t.Errorf("before: %+v", o)
	}
	r.SetFreeSWITCH(recorded.Serve(t, answering(always(okFrame))), clueCon)
	if o := runOne(t, r, Action{FreeSWITCH: []string{"status"}}); !o.OK {
		t.Errorf("after: %+v", o)
	}
}

func TestFreeSWITCHPasswordIsReadAtEachUse(t *testing.T) {
	reads := 0
	address := recorded.Serve(t, answering(always(okFrame)))
	r := newTestRunner(t, Options{FreeSWITCHAddress: address, FreeSWITCHPassword: func() (string, error) {
		reads++
		return clueCon()
	}})
	for range 2 {
		if o := runOne(t, r, Action{FreeSWITCH: []string{"status"}}); !o.OK {
			t.Errorf("%+v", o)
		}
	}
	if reads != 2 {
		t.Errorf("read %d times", reads)
	}
}
