package hooks

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// step is one turn of a recorded dialogue; exactly one field is set.
type step struct {
	client string // what the client sends, byte for byte
	server string // what FreeSWITCH sends, byte for byte
	closed bool   // the server closes
}

// loadDialogue reads a recording: "> " the client, "< " the server, "! " the
// connection. What comes after the server closed is dropped.
func loadDialogue(t testing.TB, name string) []step {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/freeswitch-esl", name))
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) < 2 {
			t.Fatalf("%s: line %q", name, line)
		}
		mark, rest := line[:2], line[2:]+"\n"
		if mark == "! " {
			return append(fixBodies(t, name, steps), step{closed: true})
		}
		n := len(steps)
		switch {
		case mark == "< " && n > 0 && steps[n-1].server != "":
			steps[n-1].server += rest
		case mark == "> " && n > 0 && steps[n-1].client != "" && !strings.HasSuffix(steps[n-1].client, "\n\n"):
			steps[n-1].client += rest
		case mark == "< ":
			steps = append(steps, step{server: rest})
		case mark == "> ":
			steps = append(steps, step{client: rest})
		default:
			t.Fatalf("%s: line %q", name, line)
		}
	}
	return fixBodies(t, name, steps)
}

// fixBodies takes away the newline that the recording adds to a body without one:
// Content-Length tells.
func fixBodies(t testing.TB, name string, steps []step) []step {
	for i := range steps {
		var exact strings.Builder
		for rest := steps[i].server; rest != ""; {
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
		steps[i].server = exact.String()
	}
	return steps
}

func dialogueNames(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/freeswitch-esl/*.txt")
	if err != nil || len(paths) != 17 {
		t.Fatalf("%d recordings, %v", len(paths), err)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

// serveEventSocket listens on loopback and hands each connection to handle.
// Whatever handle returns as an error fails the test.
func serveEventSocket(t *testing.T, handle func(net.Conn) error) (address string) {
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

// play is a server that plays the dialogue and insists on the client's bytes. A
// client that leaves between two turns is fine. With drip, every byte is a
// segment of its own.
func play(steps []step, drip bool) func(net.Conn) error {
	return func(conn net.Conn) error {
		br := bufio.NewReader(conn)
		for _, s := range steps {
			switch {
			case s.closed:
				return nil
			case s.client != "":
				got := make([]byte, len(s.client))
				if n, err := io.ReadFull(br, got); err != nil && n == 0 {
					return nil
				}
				if string(got) != s.client {
					return fmt.Errorf("client sent %q, recorded is %q", got, s.client)
				}
			default:
				if err := send(conn, s.server, drip); err != nil {
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

// cutAfter plays only the server's first n bytes, then calls end with the
// connection; read what the client sends meanwhile.
func cutAfter(steps []step, n int, end func(net.Conn)) func(net.Conn) error {
	return func(conn net.Conn) error {
		br := bufio.NewReader(conn)
		for _, s := range steps {
			if s.client != "" {
				got := make([]byte, len(s.client))
				if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, []byte(s.client)) {
					return fmt.Errorf("client sent %q, %v", got, err)
				}
				continue
			}
			if len(s.server) >= n {
				_ = send(conn, s.server[:n], false)
				end(conn)
				return nil
			}
			_ = send(conn, s.server, false)
			n -= len(s.server)
		}
		return fmt.Errorf("the recording is %d bytes short", n)
	}
}

func serverBytes(steps []step) (n int) {
	for _, s := range steps {
		n += len(s.server)
	}
	return n
}
