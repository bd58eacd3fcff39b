package hooks

import (
	"bytes"
	"context"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"sipalive/eventsocket/recorded"
)

// startMemcached runs a real memcached with one key on a free loopback port.
func startMemcached(t *testing.T) (address string, client *memcache.Client) {
	t.Helper()
	path, err := exec.LookPath("memcached")
	if err != nil {
		t.Fatalf("memcached is missing (apt-get install memcached): %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = ln.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	ln.Close()
	var said bytes.Buffer
	cmd := exec.Command(path, "-u", "nobody", "-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "8")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client = memcache.New(address)
	client.Timeout = patience
	t.Cleanup(func() {
		client.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("memcached: %s", said.String())
		}
	})
	eventually(t, "memcached answers", func() bool { return client.Ping() == nil })
	if err := client.Set(&memcache.Item{Key: "dialplan", Value: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	return address, client
}

func TestMemcachedFlushesEachServerOnItsOwn(t *testing.T) {
	first, firstClient := startMemcached(t)
	second, secondClient := startMemcached(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := closed.Addr().String()
	closed.Close()

	r := newTestRunner(t, Options{})
	o := runOne(t, r, Action{Memcached: []string{dead, first, "localhost:" + port(second)}, Timeout: patience})
	if want := "memcached: not flushed: " + dead + ": connect: connection refused"; o.OK || o.Err != want {
		t.Errorf("got  %s\nwant %s", o.Err, want)
	}
	if want := "flushed: " + first + ", localhost:" + port(second); o.Output != want {
		t.Errorf("got  %s\nwant %s", o.Output, want)
	}
	for _, client := range []*memcache.Client{firstClient, secondClient} {
		if item, err := client.Get("dialplan"); err != memcache.ErrCacheMiss {
			t.Errorf("the key is still there: %v, %v", item, err)
		}
	}
	if o := runOne(t, r, Action{Memcached: []string{first}, Timeout: patience}); !o.OK || o.Err != "" {
		t.Errorf("%+v", o)
	}
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// TestMemcachedHangs: a frozen server and a frozen resolver cost the timeout. The server
// beside them is still flushed.
func TestMemcachedHangs(t *testing.T) {
	alive, client := startMemcached(t)
	frozen := recorded.Serve(t, func(conn net.Conn) error { _, _ = io.Copy(io.Discard, conn); return nil })
	r := newTestRunner(t, Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "slow.example:") {
			<-ctx.Done() // a name server that does not answer
			return nil, ctx.Err()
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	const timeout = 400 * time.Millisecond
	var o Outcome
	for n := 0; n < 5 && o.Output == ""; n++ { // a machine that stalls has no time to flush
		o = runOne(t, r, Action{Memcached: []string{frozen, "slow.example:11211", alive}, Timeout: timeout})
	}
	want := "memcached: not flushed: " + frozen + ": no answer within 400ms; slow.example:11211: no answer within 400ms"
	if o.Err != want || o.Output != "flushed: "+alive {
		t.Errorf("got  %s, %s\nwant %s", o.Err, o.Output, want)
	}
	if o.Took < timeout || o.Took > 10*time.Second {
		t.Errorf("took %s", o.Took)
	}
	if _, err := client.Get("dialplan"); err != memcache.ErrCacheMiss {
		t.Errorf("the key is still there: %v", err)
	}
}

func TestMemcachedBadAnswer(t *testing.T) {
	for _, answer := range []string{"ERROR\r\n", "\x1b[2J\nOK\r\n", strings.Repeat("x", 100_000)} {
		address := recorded.Serve(t, func(conn net.Conn) error {
			_, _ = io.WriteString(conn, answer)
			_, _ = io.Copy(io.Discard, conn)
			return nil
		})
		o := runOne(t, newTestRunner(t, Options{}), Action{Memcached: []string{address}, Timeout: patience})
		if o.OK || o.Err != oneLine(o.Err) || !strings.HasPrefix(o.Err, "memcached: not flushed: "+address+": ") {
			t.Errorf("%.20q: %+v", answer, o)
		}
	}
}
