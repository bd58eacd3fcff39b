package control

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClientAsks(t *testing.T) {
	_, journal, dir := start(t, steady())
	c, ctx := NewClient(dir), ctxFor(t)
	st, err := c.Status(ctx)
	want := example()
	want.VIPs[0].Since.Time = want.VIPs[0].Since.Truncate(time.Second)
	if diff := cmp.Diff(want, st); err != nil || diff != "" {
		t.Errorf("status: %v\n%s", err, diff)
	}
	p, err := c.Plan(ctx, []string{"pbx2", "büro 3&n=1"})
	if err != nil || strings.Join(p.Without, "|") != "pbx2|büro 3&n=1" || len(p.VIPs) != 1 {
		t.Errorf("plan: %+v, %v", p, err)
	}
	if text, err := c.Do(ctx, Command{Kind: Failback}); err != nil || text != "failback: done" {
		t.Errorf("failback: %q, %v", text, err)
	}
	_, err = c.Do(ctx, Command{Kind: Move, VIP: "vip1", Node: "pbx9"})
	if _, none := errors.AsType[*NoAgent](err); none || err == nil || err.Error() != "move vip1 to pbx9: no such node (sipalive status lists them)" {
		t.Errorf("move to nowhere: %v", err)
	}
	if _, err := c.Do(ctx, Command{Kind: Move}); err == nil {
		t.Error("half a move is sent")
	}
	if events, err := c.Events(ctx, 10); err != nil || len(events) != 0 {
		t.Errorf("no events: %v, %v", events, err)
	}
	for range 3 {
		journal.Add(Event{Kind: KindNode})
	}
	if events, err := c.Events(ctx, 1<<30); err != nil || len(events) != 3 || events[2].ID != 3 {
		t.Errorf("all events: %v, %v", events, err)
	}
}

func TestClientFollows(t *testing.T) {
	_, journal, dir := start(t, steady(), func(s *Server) { s.patience = 50 * time.Millisecond })
	journal.Add(Event{Kind: KindAgent, Text: "forgotten"})
	journal.Add(Event{Kind: KindAgent, Text: "started"})
	ctx, cancel := context.WithCancel(ctxFor(t))
	shown, done := make(chan Event), make(chan error, 1)
	go func() {
		done <- NewClient(dir).Follow(ctx, 1, func(e Event) error { shown <- e; return nil })
	}()
	next := func(want string) {
		t.Helper()
		select {
		case e := <-shown:
			if got := e.Text + e.Outcome; got != want {
				t.Fatalf("shows %q, want %q", got, want)
			}
		case <-time.After(deadline):
			t.Fatalf("%q is not shown", want)
		}
	}
	next("started")
	id := journal.Add(Event{Kind: Takeover, Text: "slow "})
	journal.Add(Event{Kind: KindNode, Text: "pbx2 silent"})
	next("pbx2 silent")
	next("slow ") // takes longer than patience
	journal.Update(id, func(e *Event) { e.Outcome = "done" })
	next("slow done")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("follow ends with %v", err)
	}
}

func TestFollowStopsWithItsReader(t *testing.T) {
	s, journal, dir := start(t, steady())
	journal.Add(Event{Kind: KindAgent})
	broken := errors.New("write stdout: broken pipe")
	if err := NewClient(dir).Follow(ctxFor(t), 1, func(Event) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("follow ends with %v", err)
	}
	eventually(t, "follower gone", func() bool { return len(s.followers) == 0 })
}

func TestFollowersAreLimited(t *testing.T) {
	s, _, dir := start(t, steady())
	ctx, cancel := context.WithCancel(ctxFor(t))
	done := make(chan error, maxFollowers)
	for range maxFollowers {
		go func() { done <- NewClient(dir).Follow(ctx, 0, func(Event) error { return nil }) }()
	}
	eventually(t, "followers", func() bool { return len(s.followers) == maxFollowers })
	err := NewClient(dir).Follow(ctx, 0, func(Event) error { return nil })
	if err == nil || err.Error() != "follow events: 16 others follow already (end one)" {
		t.Errorf("one more: %v", err)
	}
	if _, err := NewClient(dir).Status(ctx); err != nil {
		t.Errorf("status beside followers: %v", err)
	}
	cancel()
	for range maxFollowers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNoAgent(t *testing.T) {
	dead := t.TempDir()
	leaveSocket(t, filepath.Join(dead, SocketName))
	frozen := t.TempDir() // listens but never accepts
	fl, err := net.Listen("unix", filepath.Join(frozen, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer fl.Close()
	for dir, want := range map[string]string{
		dead:                        "connection refused (does it run? systemctl status sipalive; elsewhere? --run-dir)",
		t.TempDir():                 "no such file or directory (does it run? systemctl status sipalive; elsewhere? --run-dir)",
		frozen:                      "no answer in time (see its log: journalctl -u sipalive)",
		answering(t, "hello\r\n"):   "what answers there does not speak sipalive's HTTP (is this sipalive's socket?)",
		answering(t, ok("{")):       "it ended before it had answered (does it run? systemctl status sipalive; elsewhere? --run-dir)",
		answering(t, ok("<html>")):  "what answers there does not speak sipalive's HTTP (is this sipalive's socket?)",
		answering(t, teapot):        "it answers 418 I'm a teapot (is this sipalive's socket?)",
		strings.Repeat("long/", 30): "path longer than a unix socket's may be (does it run? systemctl status sipalive; elsewhere? --run-dir)",
	} {
		c := NewClient(dir)
		c.ask = 100 * time.Millisecond
		if dir != frozen {
			c.ask = deadline
		}
		_, err := c.Status(context.Background())
		if _, none := errors.AsType[*NoAgent](err); !none || err.Error() != "ask the agent at "+filepath.Join(dir, SocketName)+": "+want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

const teapot = "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n"

func ok(body string) string { return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body }

// answering returns a directory whose socket belongs to some other program.
func answering(t *testing.T, answer string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			conn.Write([]byte(answer))
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return dir
}
