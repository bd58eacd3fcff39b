// Package recorded plays recordings of a real FreeSWITCH's event socket (1.11.1).
// FreeSWITCH is not in Debian, and a test server with invented answers proves nothing.
package recorded

import (
	"bufio"
	"bytes"
	"embed"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const directory = "freeswitch-esl"

//go:embed freeswitch-esl/*.txt
var recordings embed.FS

// Step is one turn of a recorded dialogue; exactly one field is set.
type Step struct {
	Client string // what the client sends, byte for byte
	Server string // what FreeSWITCH sends, byte for byte
	Closed bool   // the server closes
}

// Load reads a recording. "> " marks the client's lines, "< " the server's, "! " the
// connection's. What comes after the server closed is dropped.
func Load(t testing.TB, name string) []Step {
	t.Helper()
	text, err := recordings.ReadFile(directory + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var steps []Step
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) < 2 {
			t.Fatalf("%s: line %q", name, line)
		}
		mark, rest := line[:2], line[2:]+"\n"
		if mark == "! " {
			return append(fixBodies(t, name, steps), Step{Closed: true})
		}
		n := len(steps)
		switch {
		case mark == "< " && n > 0 && steps[n-1].Server != "":
			steps[n-1].Server += rest
		case mark == "> " && n > 0 && steps[n-1].Client != "" && !strings.HasSuffix(steps[n-1].Client, "\n\n"):
			steps[n-1].Client += rest
		case mark == "< ":
			steps = append(steps, Step{Server: rest})
		case mark == "> ":
			steps = append(steps, Step{Client: rest})
		default:
			t.Fatalf("%s: line %q", name, line)
		}
	}
	return fixBodies(t, name, steps)
}

// fixBodies removes the newline that the recording adds to a body without one.
// Content-Length tells which bodies these are.
func fixBodies(t testing.TB, name string, steps []Step) []Step {
	for i := range steps {
		var exact strings.Builder
		for rest := steps[i].Server; rest != ""; {
			header, after, found := strings.Cut(rest, "\n\n")
			if !found {
				t.Fatalf("%s: %q is no frame", name, rest)
			}
			n := 0
			for line := range strings.Lines(header + "\n") {
				if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
					n, _ = strconv.Atoi(strings.TrimSpace(v))
				}
			}
			if len(after) < n {
				t.Fatalf("%s: a body of %d bytes, Content-Length says %d", name, len(after), n)
			}
			exact.WriteString(header + "\n\n" + after[:n])
			rest = after[n:]
			if n > 0 && after[n-1] != '\n' {
				rest = strings.TrimPrefix(rest, "\n")
			}
		}
		steps[i].Server = exact.String()
	}
	return steps
}

// Names returns the names of the recordings, one dialogue each.
func Names(t testing.TB) []string {
	t.Helper()
	entries, err := recordings.ReadDir(directory)
	if err != nil || len(entries) != 17 {
		t.Fatalf("%d recordings, %v", len(entries), err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Serve listens on loopback and calls handle for each connection. An error from handle
// fails the test.
func Serve(t testing.TB, handle func(net.Conn) error) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				if err := handle(conn); err != nil {
					t.Errorf("event socket server: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// Play returns a server that plays the dialogue and requires exactly the client's
// recorded bytes. The client may leave between two turns. With drip, every byte is
// written on its own.
func Play(steps []Step, drip bool) func(net.Conn) error {
	return func(conn net.Conn) error {
		br := bufio.NewReader(conn)
		for _, s := range steps {
			switch {
			case s.Closed:
				return nil
			case s.Client != "":
				got := make([]byte, len(s.Client))
				if n, err := io.ReadFull(br, got); err != nil && n == 0 {
					return nil
				}
				if string(got) != s.Client {
					return fmt.Errorf("client sent %q, recorded is %q", got, s.Client)
				}
			default:
				if err := send(conn, s.Server, drip); err != nil {
					return nil // the client has left
				}
			}
		}
		if rest, _ := io.ReadAll(br); len(rest) > 0 {
			return fmt.Errorf("client sent %q after the end of the recording", rest)
		}
		return nil
	}
}

func send(w io.Writer, text string, drip bool) error {
	if !drip {
		_, err := io.WriteString(w, text)
		return err
	}
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// CutAfter plays only the server's first n bytes, then calls end with the connection. It
// reads what the client sends meanwhile.
func CutAfter(steps []Step, n int, end func(net.Conn)) func(net.Conn) error {
	return func(conn net.Conn) error {
		br := bufio.NewReader(conn)
		for _, s := range steps {
			if s.Client != "" {
				got := make([]byte, len(s.Client))
				if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, []byte(s.Client)) {
					return fmt.Errorf("client sent %q, %v", got, err)
				}
				continue
			}
			if len(s.Server) >= n {
				_ = send(conn, s.Server[:n], false)
				end(conn)
				return nil
			}
			_ = send(conn, s.Server, false)
			n -= len(s.Server)
		}
		return fmt.Errorf("the recording is %d bytes short", n)
	}
}

// ServerBytes returns how many bytes the server sends in all.
func ServerBytes(steps []Step) (n int) {
	for _, s := range steps {
		n += len(s.Server)
	}
	return n
}
