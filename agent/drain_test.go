package agent

import (
	"context"
	"net"
	"strings"
	"testing"

	"sipalive/control"
	"sipalive/hooks"
)

// TestDrainQuietlyOnceAtATime: the first waits for a FreeSWITCH that does not
// answer; a second is refused, one after it is not.
func TestDrainQuietlyOnceAtATime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	directory, err := OpenDirectory(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{Parts: Parts{Directory: directory, Runner: hooks.NewRunner(hooks.Options{
		Now:                func() int64 { return 0 },
		FreeSWITCHAddress:  l.Addr().String(),
		FreeSWITCHPassword: func() (string, error) { return "ClueCon", nil },
	})}}
	drain := func() error {
		_, err := a.DrainQuietly(context.Background(), control.WaitCalls{}, func(control.CallsLeft) {})
		return err
	}
	first := make(chan error, 1)
	for range 2 { // the second round: once the first has ended
		go func() { first <- drain() }()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		const want = "drain --wait-calls: another one runs on this node (end it first)"
		if err := drain(); err == nil || err.Error() != want {
			t.Errorf("a second drain: %v, want %s", err, want)
		}
		conn.Close()
		if err := <-first; err == nil || !strings.Contains(err.Error(), "fsctl pause_check") {
			t.Errorf("the first drain: %v", err)
		}
	}
}
