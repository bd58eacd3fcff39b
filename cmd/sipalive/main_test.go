package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sipalive/hooks"

	"sipalive/control"
)

func TestMain(m *testing.M) {
	hooks.BecomeAction() // this binary also runs actions
	testscript.Main(m, map[string]func(){"sipalive": main, "memcached": fakeMemcached,
		"freeswitch": fakePBX, "kamailio": fakePBX, "asterisk": fakePBX, "opensips": fakePBX})
}

// The scripts run the real command. They have these commands besides testscript's own:
//
//	code N COMMAND...   run it and expect that exit code
//	agent [frozen]      an agent that answers in the directory run, with a journal
//	happen              the takeover in the journal of that agent is complete
//	sip [ADDRESS:PORT]  a SIP server, over TCP too if an address is given; its address and port are $SIP
//	tls ADDRESS:PORT D  a SIP server over TLS whose certificate, by the authority in ca.pem, ends on that date
//	mute ADDRESS:PORT   a server that listens over UDP and never answers
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "agent": startAgent, "sip": startSIP, "happen": happen, "tls": startTLS, "mute": startMute,
		},
	})
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func startAgent(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs("run")
	ts.Check(os.MkdirAll(dir, 0o700))
	l, warning, err := control.Listen(dir, "")
	ts.Check(err)
	if warning != "" {
		ts.Fatalf("%s", warning)
	}
	journal := control.NewJournal(control.DefaultEvents)
	fillJournal(journal)
	journals.Store(ts.MkAbs("."), journal)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- control.NewServer(fakeAgent{frozen: len(args) > 0}, journal).Serve(ctx, l)
	}()
	ts.Defer(func() {
		cancel()
		ts.Check(<-served)
	})
}

func happen(ts *testscript.TestScript, _ bool, _ []string) {
	j, ok := journals.Load(ts.MkAbs("."))
	if !ok {
		ts.Fatalf("no agent runs")
	}
	out := filepath.Join(ts.MkAbs("."), "followed")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		// The follower has caught up once its first line is there.
		if text, err := os.ReadFile(out); err == nil && len(text) > 0 {
			break
		}
		if time.Now().After(end) {
			ts.Fatalf("%s: still empty", out)
		}
	}
	j.(*control.Journal).Update(takeoverID, func(e *control.Event) {
		e.Add("sip answered", 62*time.Millisecond)
		e.Outcome = "done in 62.0 ms"
	})
}
