package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/hooks"
	"sipalive/platform"
)

// TestHooksService: the service at the socket beside the runtime directory runs the
// agent's programs, once. What a killed service left there does no harm.
func TestHooksService(t *testing.T) {
	dir, err := os.MkdirTemp("", "sipalive-hooks-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	runDir := filepath.Join(dir, "run")
	socket := hooksService(runDir)
	if socket != filepath.Join(dir, "run-hooks", "hooks.sock") || hooksService("/run/sipalive/") != "/run/sipalive-hooks/hooks.sock" {
		t.Errorf("socket %s", socket)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serveHooks(ctx, socket, "root") }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			if info.Mode().Perm() != 0o600 {
				t.Errorf("socket mode %v", info.Mode())
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody listens")
		}
	}
	if err := serveHooks(ctx, socket, "root"); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("a second service: %v", err)
	}
	if err := serveHooks(ctx, socket, "no-such-user"); err == nil || err.Error() != "hooks --user no-such-user: no such user on this node" {
		t.Errorf("for nobody: %v", err)
	}
	r := hooks.NewRunner(hooks.Options{Now: platform.BootNow, Service: socket})
	defer r.Close(context.Background())
	outcome := make(chan hooks.Outcome, 1)
	r.Start("vip1", hooks.Acquire, 1, hooks.Event{VIP: "vip1"}, []hooks.Action{{On: hooks.Acquire, Exec: []string{"/usr/bin/id", "-un"}, User: "nobody"}},
		func(o hooks.Outcome) { outcome <- o }, func(hooks.End) {})
	if o := <-outcome; !o.OK || o.Output != "nobody\n" {
		t.Errorf("%+v", o)
	}
}
