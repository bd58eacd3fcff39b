package sipcheck

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// The most that one message from the network may cost.
const (
	corpusTime  = 50 * time.Millisecond
	corpusBytes = 1 << 20
)

// malformed returns our own corpus: each header of a good answer damaged in many ways,
// bad start lines, truncated messages, and flipped bits.
func malformed() map[string]string {
	all := map[string]string{}
	head, rest, _ := strings.Cut(strings.TrimSuffix(goodAnswer, "\r\n\r\n"), "\r\n")
	lines := strings.Split(rest, "\r\n")
	build := func(start string, lines []string) string {
		return start + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	damage := map[string]func(name, value string) string{
		"left out":              func(string, string) string { return "" },
		"empty":                 func(n, _ string) string { return n + ":" },
		"only spaces":           func(n, _ string) string { return n + ":" + strings.Repeat(" ", 2000) },
		"no colon":              func(n, v string) string { return n + " " + v },
		"two colons":            func(n, v string) string { return n + ":: " + v },
		"space in its name":     func(n, v string) string { return n[:1] + " " + n[1:] + ": " + v },
		"NUL in its name":       func(n, v string) string { return n[:1] + "\x00" + n[1:] + ": " + v },
		"NUL in its value":      func(n, v string) string { return n + ": " + v[:len(v)/2] + "\x00" + v[len(v)/2:] },
		"bare CR":               func(n, v string) string { return n + ": " + v[:len(v)/2] + "\r" + v[len(v)/2:] },
		"bare LF":               func(n, v string) string { return n + ": " + v[:len(v)/2] + "\n" + v[len(v)/2:] },
		"bytes above 127":       func(n, _ string) string { return n + ": \xff\xfe\x80\xc3\x28" },
		"open quote":            func(n, v string) string { return n + ": \"" + v },
		"open angle bracket":    func(n, v string) string { return n + ": <" + v },
		"closed angle brackets": func(n, v string) string { return n + ": >>>" + v },
		"half its value":        func(n, v string) string { return n + ": " + v[:len(v)/2] },
		"ends in a semicolon":   func(n, v string) string { return n + ": " + v + ";" },
		"empty parameters":      func(n, v string) string { return n + ": " + v + ";;;=;=;" },
		"many commas":           func(n, v string) string { return n + ": " + v + strings.Repeat(",", 5000) },
		"many parameters":       func(n, v string) string { return n + ": " + v + manyParams(12000) },
		"long":                  func(n, v string) string { return n + ": " + v + strings.Repeat("x", 15000) },
		"too long":              func(n, v string) string { return n + ": " + v + strings.Repeat("x", 60000) },
		"said a hundred times":  func(n, v string) string { return strings.TrimSuffix(strings.Repeat(n+": "+v+"\r\n", 100), "\r\n") },
		"folded":                func(n, v string) string { return n + ":\r\n " + strings.Join(strings.Split(v, ""), "\r\n ") },
		"its name a megabyte":   func(n, v string) string { return strings.Repeat(n, 1<<20/len(n)) + ": " + v },
	}
	for i, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		for how, f := range damage {
			spoilt := append([]string(nil), lines...)
			if spoilt[i] = f(name, value); spoilt[i] == "" {
				spoilt = append(spoilt[:i], spoilt[i+1:]...)
			}
			all[name+" "+how] = build(head, spoilt)
		}
	}
	for _, start := range []string{"", " ", "SIP", "SIP/2.0", "SIP/2.0 ", "SIP/2.0  200 OK", "SIP/2.0\t200\tOK", "sip/2.0 200 OK", "SIP/2 200 OK",
		"SIP/2.0 2OO OK", "SIP/2.0 20 OK", "SIP/2.0 2000 OK", "SIP/2.0 +200 OK", "SIP/2.0 0x200 OK", "SIP/2.0 200.0 OK", "SIP/2.0 99999999999999999999 OK",
		"SIP/2.0 000 OK", "SIP/2.0 -1 OK", "HTTP/1.1 200 OK", "RTSP/1.0 200 OK", "OPTIONS sip:a SIP/2.0", "200 OK SIP/2.0", "SIP/2.0 \xff\xff\xff OK",
		strings.Repeat("SIP/2.0 ", 1000) + "200 OK"} {
		all[fmt.Sprintf("start line %.30q", start)] = build(start, lines)
	}
	for n := 1; n < len(goodAnswer); n += 11 {
		all[fmt.Sprintf("cut after %d bytes", n)] = goodAnswer[:n]
	}
	r := rand.New(rand.NewPCG(4475, 0))
	for i := range 60 {
		b := []byte(goodAnswer)
		for range 1 + i/10 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		all[fmt.Sprintf("bits flipped, %d", i)] = string(b)
	}
	return all
}

// torture returns the messages of RFC 4475, both unchanged and changed into an answer to
// the probe, so that they pass the first checks.
func torture(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/rfc4475/*.sip")
	if err != nil || len(files) != 49 {
		t.Fatalf("%d messages of RFC 4475, %v", len(files), err)
	}
	startLine := regexp.MustCompile(`^[^\r\n]*`)
	all := map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".sip")
		all["RFC 4475 "+name] = string(b)
		_, top, _ := strings.Cut(strings.TrimSuffix(goodAnswer, "Server: kamailio (5.6.3)\r\nContent-Length: 0\r\n\r\n"), "\r\n")
		all["RFC 4475 "+name+" as an answer"] = "SIP/2.0 200 OK\r\n" + top + strings.TrimLeft(string(startLine.ReplaceAll(b, nil)), "\r\n")
		all["RFC 4475 "+name+" as a response"] = string(startLine.ReplaceAll(b, []byte("SIP/2.0 200 OK")))
	}
	return all
}

// TestCorpus: no message panics or costs more than it may. A message that is no answer to
// the probe is refused, and every message ends when it is read from a stream.
func TestCorpus(t *testing.T) {
	own, rfc := malformed(), torture(t)
	if len(own) < 200 {
		t.Fatalf("only %d malformed answers", len(own))
	}
	refused := 0
	for _, corpus := range []map[string]string{own, rfc} {
		for name, text := range corpus {
			data := []byte(text)
			_, err := matchAnswer(newAnswerParser(), data, probeIDs)
			if err != nil && !errors.Is(err, errLate) && !errors.Is(err, errMalformed) {
				t.Errorf("%s: %v", name, err)
			}
			if err != nil {
				refused++
			}
			affordable(t, name, func() {
				p := newAnswerParser()
				_, _ = matchAnswer(p, data, probeIDs)
			})
			affordable(t, name+", on a stream", func() {
				r := newMessageReader(strings.NewReader(text))
				for err := error(nil); err == nil; {
					_, err = r.next()
				}
			})
		}
	}
	t.Logf("%d malformed answers of our own, %d of RFC 4475; %d refused", len(own), len(rfc), refused)
	if refused < 200 {
		t.Errorf("only %d refused: the corpus does not damage enough", refused)
	}
}

// affordable takes the best of three runs, because others use the machine too.
func affordable(t *testing.T, what string, f func()) {
	t.Helper()
	limit := time.Duration(corpusTime)
	if raceEnabled { // the race detector makes everything some ten times slower
		limit *= 10
	}
	best, least := time.Hour, uint64(1<<40)
	for i := 0; i < 3 && (i == 0 || best > limit || least > corpusBytes); i++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		f()
		best = min(best, time.Since(start))
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	if best > limit || least > corpusBytes {
		t.Errorf("%s: %v and %d bytes", what, best, least)
	}
}

// FuzzMessageReader: whatever comes over a connection, reading ends, stays within its
// bounds, and does not depend on how the bytes are cut into segments.
func FuzzMessageReader(f *testing.F) {
	f.Add([]byte(goodAnswer + goodAnswer))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, wholeErr := readMessages(t, bytes.NewReader(data))
		drip, dripErr := readMessages(t, iotest.OneByteReader(bytes.NewReader(data)))
		if len(whole) != len(drip) || wholeErr.Error() != dripErr.Error() {
			t.Fatalf("whole: %d messages, %v; drip: %d, %v", len(whole), wholeErr, len(drip), dripErr)
		}
		for i := range whole {
			if !bytes.Equal(whole[i], drip[i]) {
				t.Fatalf("message %d: %q and %q", i, whole[i], drip[i])
			}
		}
	})
}

func readMessages(t *testing.T, from io.Reader) (all [][]byte, err error) {
	r := newMessageReader(from)
	for {
		m, err := r.next()
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("not one line: %q", err)
			}
			return all, err
		}
		if len(m) > maxAnswer || len(m) == 0 {
			t.Fatalf("a message of %d bytes", len(m))
		}
		all = append(all, m)
	}
}
