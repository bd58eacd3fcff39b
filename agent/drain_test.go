package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/hooks"
)

// beside returns an agent whose FreeSWITCH is the test, at l.
func beside(t *testing.T) (a *Agent, l net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := newRecording(t)
	r.a.Directory = openDirectory(t, t.TempDir())
	r.a.Runner = hooks.NewRunner(hooks.Options{
		Now:                func() int64 { return 0 },
		FreeSWITCHAddress:  l.Addr().String(),
		FreeSWITCHPassword: func() (string, error) { return "ClueCon", nil },
	})
	return r.a, l
}

// TestDrainQuietlyOnceAtATime: the first drain waits for a FreeSWITCH that does not
// answer. A second one is refused; one after the first has ended is not.
func TestDrainQuietlyOnceAtATime(t *testing.T) {
	a, l := beside(t)
	drain := func() error {
		_, err := a.DrainQuietly(context.Background(), control.WaitCalls{}, func(control.CallsLeft) {})
		return err
	}
	first := make(chan error, 1)
	for range 2 { // the second round starts once the first has ended
		go func() { first <- drain() }()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		const want = "drain --wait-calls: another one runs on this node (end it first), or new calls are just being let in again after one (try again)"
		if err := drain(); err == nil || err.Error() != want {
			t.Errorf("a second drain: %v, want %s", err, want)
		}
		conn.Close()
		if err := <-first; err == nil || !strings.Contains(err.Error(), "fsctl pause_check") {
			t.Errorf("the first drain: %v", err)
		}
	}
}

// idle answers at l like a FreeSWITCH without calls. paused reports whether it was last
// told to pause.
func idle(l net.Listener) (paused func() bool) {
	var is atomic.Bool
	serve := func(conn net.Conn) {
		defer conn.Close()
		fmt.Fprint(conn, "Content-Type: auth/request\n\n")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			command, asked := strings.CutPrefix(lines.Text(), "api ")
			text := "+OK\n"
			switch {
			case lines.Text() == "":
				continue
			case !asked:
				fmt.Fprint(conn, "Content-Type: command/reply\nReply-Text: +OK accepted\n\n")
				continue
			case command == "fsctl pause_check":
				text = strconv.FormatBool(is.Load())
			case command == "show calls count":
				text = "\n0 total.\n"
			default:
				is.Store(command == "fsctl pause")
			}
			fmt.Fprintf(conn, "Content-Type: api/response\nContent-Length: %d\n\n%s", len(text), text)
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return is.Load
}

// TestDrainQuietlyInterrupted: before the loop has the drain, the drain is called off and
// new calls are let in again. After that, the loop tells the result.
func TestDrainQuietlyInterrupted(t *testing.T) {
	a, l := beside(t)
	paused := idle(l)
	a.queries, a.ended = make(chan func()), make(chan struct{})
	type end struct {
		text string
		err  error
	}
	drain := func(ctx context.Context, progress func(control.CallsLeft)) <-chan end {
		ended := make(chan end, 1)
		go func() {
			text, err := a.DrainQuietly(ctx, control.WaitCalls{Wait: time.Hour}, progress)
			ended <- end{text, err}
		}()
		return ended
	}
	ctx, cancel := context.WithCancel(t.Context())
	const off = "drain --wait-calls: interrupted: nothing was moved, and new calls are let in again"
	select {
	case got := <-drain(ctx, func(control.CallsLeft) { cancel() }):
		if got.err == nil || got.err.Error() != off || paused() {
			t.Errorf("ended with %v, paused %t; want %s", got.err, paused(), off)
		}
	case <-a.queries:
		t.Fatal("interrupted, it is carried out")
	}

	ctx, cancel = context.WithCancel(t.Context())
	ended := drain(ctx, func(control.CallsLeft) {})
	<-a.queries // the loop has it
	cancel()
	select {
	case got := <-ended:
		t.Errorf("ended with %v, though the loop may have drained the node", got.err)
	case <-time.After(100 * time.Millisecond):
		close(a.ended)
		if got := <-ended; !errors.Is(got.err, errEnded) || paused() {
			t.Errorf("ended with %v, paused %t; want %v", got.err, paused(), errEnded)
		}
	}
}

// TestResumedOnceNobodyWaits: if an earlier agent left FreeSWITCH paused, new calls are
// not let in while a drain waits.
func TestResumedOnceNobodyWaits(t *testing.T) {
	a, l := beside(t)
	if err := os.WriteFile(a.pbx().mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
			poke(asked)
		}
	}()
	begin := func() (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.resumeCalls(ctx) }()
		return func() { cancel(); <-ended }
	}
	a.waitsOut.Lock()
	end := begin()
	select {
	case <-asked:
		t.Error("FreeSWITCH is asked while a drain waits")
	case <-time.After(100 * time.Millisecond):
	}
	end()
	a.waitsOut.Unlock()
	end = begin()
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Error("FreeSWITCH is not asked")
	}
	end()
}
