package sipcheck

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sipalive/eventsocket"
	"sipalive/eventsocket/recorded"
)

// pauseAnswers are the answers of a real FreeSWITCH to each of the two questions, in
// order: pause_check before, during and after a pause, ready_check during and after it.
func pauseAnswers(t *testing.T) (hello []recorded.Step, pause, ready []string) {
	t.Helper()
	steps := recorded.Load(t, "pause-resume-ready.txt")
	for i := 0; i+1 < len(steps); i++ {
		switch steps[i].Client {
		case "api fsctl pause_check\n\n":
			pause = append(pause, steps[i+1].Server)
		case "api fsctl ready_check\n\n":
			ready = append(ready, steps[i+1].Server)
		}
	}
	if len(pause) != 3 || len(ready) != 2 {
		t.Fatalf("the recording has changed: %d and %d answers", len(pause), len(ready))
	}
	return steps[:3], pause, ready
}

func TestReadiness(t *testing.T) {
	hello, pause, ready := pauseAnswers(t)
	readyCheck, pauseCheck := recorded.Step{Client: "api fsctl ready_check\n\n"}, recorded.Step{Client: "api fsctl pause_check\n\n"}
	say := func(text string) recorded.Step { return recorded.Step{Server: text} }
	frame := func(body string) recorded.Step {
		return say("Content-Type: api/response\nContent-Length: " + map[int]string{4: "4", 5: "5", 31: "31"}[len(body)] + "\n\n" + body)
	}
	for name, c := range map[string]struct {
		steps []recorded.Step
		want  Readiness
		err   string
	}{
		"ready":           {[]recorded.Step{readyCheck, say(ready[1])}, Ready, ""},
		"paused":          {[]recorded.Step{readyCheck, say(ready[0]), pauseCheck, say(pause[1])}, Paused, ""},
		"neither":         {[]recorded.Step{readyCheck, say(ready[0]), pauseCheck, say(pause[0])}, Unready, ""},
		"no such command": {[]recorded.Step{readyCheck, frame("-ERR fsctl Command not found!\n\n")}, ReadinessUnknown, "fsctl ready_check: -ERR fsctl Command not found!"},
		"something else":  {[]recorded.Step{readyCheck, frame("+OK\n")}, ReadinessUnknown, `fsctl ready_check: neither true nor false: "+OK"`},
		"closed in the middle": {[]recorded.Step{readyCheck, say("Content-Type: api/response\nContent-Length: 4\n\ntr"), {Closed: true}},
			ReadinessUnknown, "FreeSWITCH closed the connection in the middle of an answer"},
	} {
		for _, drip := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				client := eventsocket.Client{Address: recorded.Serve(t, recorded.Play(append(hello[:3:3], c.steps...), drip)),
					Password: func() (string, error) { return "ClueCon", nil }}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				got, err := AskReadiness(ctx, client)
				if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v, %v; want %v, %s", got, err, c.want, c.err)
				}
			})
		}
	}
}

// TestReadinessOfAFrozenFreeSWITCH: a frozen FreeSWITCH accepts and says nothing. The
// result is no verdict, within the deadline.
func TestReadinessOfAFrozenFreeSWITCH(t *testing.T) {
	address := recorded.Serve(t, func(c net.Conn) error { _, _ = io.Copy(io.Discard, c); return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	got, err := AskReadiness(ctx, eventsocket.Client{Address: address, Password: func() (string, error) { return "x", nil }})
	if got != ReadinessUnknown || err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v, %v", got, err)
	}
}
