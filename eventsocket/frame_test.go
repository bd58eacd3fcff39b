package eventsocket

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"sipalive/eventsocket/recorded"
)

// TestReplay plays every recording to the client, whole and in drips, and
// compares each answer with the recorded one.
func TestReplay(t *testing.T) {
	for _, name := range recorded.Names(t) {
		for _, drip := range []bool{false, true} {
			mode := map[bool]string{false: "whole", true: "drip"}[drip]
			t.Run(strings.TrimSuffix(name, ".txt")+"/"+mode, func(t *testing.T) { replay(t, recorded.Load(t, name), drip) })
		}
	}
}

func replay(t *testing.T, steps []recorded.Step, drip bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	address := recorded.Serve(t, recorded.Play(steps, drip))
	password := strings.TrimSuffix(strings.TrimPrefix(steps[1].Client, "auth "), "\n\n")
	s, err := Client{Address: address, Password: func() (string, error) { return password, nil }}.Open(ctx)
	if password == "wrong" {
		want := "the password is not accepted (-ERR invalid): see password_file and event_socket.conf.xml"
		if err == nil || err.Error() != want {
			t.Fatalf("got %v, want %s", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := 3; i < len(steps); i++ {
		if steps[i].Client == "" {
			continue
		}
		line := strings.TrimSuffix(steps[i].Client, "\n\n")
		got, err := s.command(line, bodyKept)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if want := firstAnswer(steps[i+1].Server); answer(got) != want {
			t.Errorf("%s:\ngot  %q\nwant %q", line, answer(got), want)
		}
	}
	s.conn.(*net.TCPConn).CloseWrite()
	for err == nil { // skip events and the disconnect notice after the last answer
		_, err = readFrame(s.br, bodyKept)
	}
	if err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
}

// answer returns the part of a frame by which a command is judged.
func answer(f frame) string { return f.contentType + "|" + f.replyText + "|" + string(f.body) }

// firstAnswer takes that part from the server's bytes, with a parser of its own.
func firstAnswer(text string) string {
	header, body, _ := strings.Cut(text, "\n\n")
	var kind, reply string
	for line := range strings.Lines(header) {
		line = strings.TrimSuffix(line, "\n")
		if v, ok := strings.CutPrefix(line, "Content-Type: "); ok {
			kind = v
		}
		if v, ok := strings.CutPrefix(line, "Reply-Text: "); ok {
			reply = v
		}
	}
	if !strings.Contains(header, "Content-Length") {
		body = ""
	}
	return kind + "|" + reply + "|" + body
}

func TestReadFrameErrors(t *testing.T) {
	long := strings.Repeat("x", frameLineMax)
	tests := map[string]struct{ text, want string }{
		"nothing":         {"", "EOF"},
		"only newlines":   {"\n\n\n", "EOF"},
		"half a line":     {"Content-Ty", "unexpected EOF"},
		"half a header":   {"Content-Type: api/response\n", "unexpected EOF"},
		"half a body":     {"Content-Type: api/response\nContent-Length: 5\n\nabc", "unexpected EOF"},
		"half a cut body": {"Content-Type: api/response\nContent-Length: 70000\n\n" + strings.Repeat("a", 66000), "unexpected EOF"},
		"not headers":     {"SSH-2.0-OpenSSH_9.2\r\n", `not an event socket's answer: "SSH-2.0-OpenSSH_9.2"`},
		"no type":         {"Reply-Text: +OK\n\n", "not an event socket's answer: no Content-Type"},
		"negative length": {"Content-Type: a\nContent-Length: -1\n\n", `not an event socket's answer: Content-Length "-1"`},
		"length is text":  {"Content-Type: a\nContent-Length: many\n\n", `not an event socket's answer: Content-Length "many"`},
		"length overflow": {"Content-Type: a\nContent-Length: 99999999999999999999\n\n", `not an event socket's answer: Content-Length "99999999999999999999"`},
		"too long":        {"Content-Type: a\nContent-Length: 8388609\n\n", "an answer of 8388609 bytes is too long (at most 8388608)"},
		"long line":       {"Reply-Text: " + long + "\n\n", "not an event socket's answer: a line of more than 16384 bytes"},
		"endless header":  {strings.Repeat("A: b\n", 100), "not an event socket's answer: more than 64 header lines"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := readFrame(bufio.NewReaderSize(strings.NewReader(tt.text), frameLineMax), bodyKept)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestReadFrameKeepsTheBeginningOfALongBody(t *testing.T) {
	body := strings.Repeat("0123456789", 10_000)
	text := "content-type: api/response\r\ncontent-length: 100000\r\n\r\n" + body + "\nContent-Type: command/reply\nReply-Text: +OK next\n\n"
	br := bufio.NewReaderSize(strings.NewReader(text), frameLineMax)
	f, err := readFrame(br, bodyKept)
	if err != nil || string(f.body) != body[:bodyKept] || f.cut != len(body)-bodyKept {
		t.Fatalf("kept %d, cut %d, %v", len(f.body), f.cut, err)
	}
	if f, err = readFrame(br, bodyKept); err != nil || f.replyText != "+OK next" {
		t.Errorf("the next frame is %+v, %v", f, err)
	}
}

// FuzzReadFrame: whatever the server sends, reading ends and keeps to its limits. The
// result does not depend on how the bytes are cut into segments.
func FuzzReadFrame(f *testing.F) {
	for _, name := range recorded.Names(f) {
		var all bytes.Buffer
		for _, s := range recorded.Load(f, name) {
			all.WriteString(s.Server)
		}
		f.Add(all.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, wholeErr := readAll(t, bytes.NewReader(data))
		drip, dripErr := readAll(t, iotest.OneByteReader(bytes.NewReader(data)))
		if d := cmp.Diff(whole, drip, cmp.AllowUnexported(frame{})); d != "" || wholeErr.Error() != dripErr.Error() {
			t.Errorf("whole (%v) and drip (%v) differ:\n%s", wholeErr, dripErr, d)
		}
	})
}

func readAll(t *testing.T, r io.Reader) (frames []frame, err error) {
	br := bufio.NewReaderSize(r, frameLineMax)
	for {
		f, err := readFrame(br, bodyKept)
		if err != nil {
			if msg := err.Error(); msg != printable(msg) || strings.ContainsAny(msg, "\n\t") {
				t.Errorf("the error is not one line: %q", msg)
			}
			return frames, err
		}
		if f.contentType == "" || len(f.body) > bodyKept || f.cut > 0 && len(f.body) < bodyKept {
			t.Errorf("a frame with type %q, %d bytes, %d cut", f.contentType, len(f.body), f.cut)
		}
		frames = append(frames, f)
		_ = judge(string(f.body))
	}
}
