package realinput

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// serveEventSocket plays FreeSWITCH's event socket on 127.0.0.1:8021 for one recorded
// dialogue. args are the recording and a file that names the behaviour. It reads that
// file again for each connection:
//
//	play        as recorded
//	drip        as recorded, a byte per segment and millisecond
//	hang        nothing after the client's command
//	disconnect  closes in the middle of the answer
//	refuse      closes the listener, until the file says otherwise
func serveEventSocket(args []string) error {
	recording, control := args[0], args[1]
	turns, err := loadRecording(recording)
	if err != nil {
		return err
	}
	for {
		if behaviour(control) == "refuse" {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if err := listenWhile(control, turns); err != nil {
			return err
		}
	}
}

func behaviour(control string) string {
	b, err := os.ReadFile(control)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// listenWhile accepts connections until the file says refuse.
func listenWhile(control string, turns []turn) error {
	ln, err := net.Listen("tcp4", "127.0.0.1:8021")
	if err != nil {
		return err
	}
	defer ln.Close()
	for {
		_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Millisecond))
		conn, err := ln.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if behaviour(control) == "refuse" {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := play(conn, turns, behaviour(control)); err != nil {
				fmt.Println("event socket:", err) // goes into the process's output
			}
		}()
	}
}

// turn is what one side sends, byte for byte, before the other side's turn.
type turn struct {
	client bool
	text   string
}

// loadRecording reads a dialogue: the client's lines begin with "> ", the server's with
// "< ".
func loadRecording(path string) (turns []turn, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if len(line) < 3 || line[0] != '<' && line[0] != '>' {
			return nil, fmt.Errorf("%s: line %q", filepath.Base(path), line)
		}
		client := line[0] == '>'
		if n := len(turns); n == 0 || turns[n-1].client != client {
			turns = append(turns, turn{client: client})
		}
		turns[len(turns)-1].text += line[2:]
	}
	return turns, nil
}

// play plays the server's side. It fails if the client's bytes are not the recorded ones.
func play(conn net.Conn, turns []turn, how string) error {
	from := bufio.NewReader(conn)
	for i, t := range turns {
		last := i == len(turns)-1
		switch {
		case t.client:
			got := make([]byte, len(t.text))
			if _, err := io.ReadFull(from, got); err != nil || string(got) != t.text {
				return fmt.Errorf("client sent %q, recorded is %q: %v", got, t.text, err)
			}
		case last && how == "hang":
			_, _ = io.Copy(io.Discard, from) // until the client leaves
			return nil
		case last && how == "disconnect":
			_, err := io.WriteString(conn, t.text[:len(t.text)/2])
			return err
		case how == "drip":
			for j := range len(t.text) {
				if _, err := io.WriteString(conn, t.text[j:j+1]); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		default:
			if _, err := io.WriteString(conn, t.text); err != nil {
				return err
			}
		}
	}
	_, _ = io.Copy(io.Discard, from)
	return nil
}
