package sipcheck

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

var probeIDs = ids{branch: "z9hG4bK0123456789abcdef", callID: "1123456789abcdef", tag: "2123456789abcdef"}

// goodAnswer is correct in every line. Tests damage one line each.
const goodAnswer = "SIP/2.0 200 OK\r\n" +
	"Via: SIP/2.0/UDP 127.0.0.1:40000;rport=40000;branch=z9hG4bK0123456789abcdef\r\n" +
	"From: <sip:ping@127.0.0.1>;tag=2123456789abcdef\r\n" +
	"To: <sip:127.0.0.1:5060>;tag=x\r\n" +
	"Call-ID: 1123456789abcdef\r\n" +
	"CSeq: 1 OPTIONS\r\n" +
	"Server: kamailio (5.6.3)\r\n" +
	"Content-Length: 0\r\n\r\n"

// spoiled are the answers that a prober must survive, named by what they damage.
func spoiled() map[string]struct {
	datagram string
	want     error // nil: still an answer
} {
	type answer = struct {
		datagram string
		want     error
	}
	change := func(old, new string) string {
		if !strings.Contains(goodAnswer, old) {
			panic(old)
		}
		return strings.Replace(goodAnswer, old, new, 1)
	}
	return map[string]answer{
		"good":                      {goodAnswer, nil},
		"compact headers":           {strings.NewReplacer("Via:", "v:", "From:", "f:", "To:", "t:", "Call-ID:", "i:", "Content-Length:", "l:").Replace(goodAnswer), nil},
		"headers in capitals":       {strings.NewReplacer("Via:", "VIA:", "Call-ID:", "CALL-ID:", "CSeq:", "CSEQ:").Replace(goodAnswer), nil},
		"spaces in Via":             {change("40000;rport=40000;branch", "40000 ; rport=40000 ; branch"), nil},
		"folded Via":                {change(";branch=", "\r\n ;branch="), nil},
		"no Content-Length":         {change("Content-Length: 0\r\n", ""), nil},
		"no Server":                 {change("Server: kamailio (5.6.3)\r\n", ""), nil},
		"unreadable Contact":        {change("CSeq:", "Contact: <<<sip:;;@@\r\nCSeq:"), nil},
		"empty phrase":              {change("200 OK", "200 "), nil},
		"unknown code":              {change("200 OK", "699 Whatever"), nil},
		"no To":                     {change("To: <sip:127.0.0.1:5060>;tag=x\r\n", ""), errMalformed},
		"no From":                   {change("From: <sip:ping@127.0.0.1>;tag=2123456789abcdef\r\n", ""), errMalformed},
		"no Call-ID":                {change("Call-ID: 1123456789abcdef\r\n", ""), errMalformed},
		"no CSeq":                   {change("CSeq: 1 OPTIONS\r\n", ""), errMalformed},
		"no Via":                    {change("Via: SIP/2.0/UDP 127.0.0.1:40000;rport=40000;branch=z9hG4bK0123456789abcdef\r\n", ""), errLate},
		"wrong Call-ID":             {change("Call-ID: 1", "Call-ID: 9"), errMalformed},
		"wrong CSeq number":         {change("CSeq: 1", "CSeq: 2"), errMalformed},
		"CSeq of another method":    {change("OPTIONS", "INVITE"), errMalformed},
		"CSeq of 2^32":              {change("CSeq: 1", "CSeq: 4294967296"), errMalformed},
		"an older branch":           {change("z9hG4bK0", "z9hG4bK9"), errLate},
		"our branch in another Via": {change("Via: ", "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKother\r\nVia: "), errMalformed},
		"our branch after a comma":  {change("Via: ", "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKother, "), errMalformed},
		"our branch as a Call-ID":   {change("Call-ID: 1123456789abcdef", "Call-ID: z9hG4bK0123456789abcdef"), errMalformed},
		"code 99":                   {change("200 OK", "99 Early"), errMalformed},
		"code 700":                  {change("200 OK", "700 Late"), errMalformed},
		"code of letters":           {change("200 OK", "abc OK"), errMalformed},
		"negative code":             {change("200 OK", "-200 OK"), errMalformed},
		"SIP 3":                     {change("SIP/2.0 200", "SIP/3.0 200"), errMalformed},
		"a request":                 {"OPTIONS sip:127.0.0.1 SIP/2.0\r\n" + goodAnswer[len("SIP/2.0 200 OK\r\n"):], errMalformed},
		"half an answer":            {goodAnswer[:len(goodAnswer)/2], errMalformed},
		"cut in the last header":    {goodAnswer[:len(goodAnswer)-6], errMalformed},
		"no blank line":             {goodAnswer[:len(goodAnswer)-2], errMalformed},
		"bare line feeds":           {strings.ReplaceAll(goodAnswer, "\r\n", "\n"), errMalformed},
		"header without colon":      {change("Server: ", "Server "), errMalformed},
		"body shorter than said":    {change("Content-Length: 0", "Content-Length: 10"), errMalformed},
		"Content-Length of 4 GB":    {change("Content-Length: 0", "Content-Length: 4294967295"), errMalformed},
		"negative Content-Length":   {change("Content-Length: 0", "Content-Length: -1"), errMalformed},
		"binary To":                 {change("<sip:127.0.0.1:5060>", "\x00\xff\xfe<\x01"), errMalformed},
		"NUL bytes":                 {strings.Repeat("\x00", 300), errMalformed},
		"empty":                     {"", errMalformed},
		"keepalive":                 {"\r\n\r\n", errMalformed},
		"STUN":                      {"\x01\x01\x00\x0c\x21\x12\xa4\x42abcdefghijkl", errMalformed},
		"64 KB body":                {change("Content-Length: 0\r\n\r\n", "Content-Length: 64000\r\n\r\n"+strings.Repeat("x", 64000)), errMalformed},
		"64 KB of parameters":       {change(";tag=x", manyParams(60000)), errMalformed},
		"64 KB of headers":          {change("Server:", strings.Repeat("X: y\r\n", 10000)+"Server:"), errMalformed},
		"a thousand Vias":           {change("From:", strings.Repeat("Via: SIP/2.0/UDP 192.0.2.9\r\n", 500)+"From:"), nil},
		"parameters in the body":    {change("Content-Length: 0\r\n\r\n", "Content-Length: 600\r\n\r\n"+strings.Repeat(";", 600)), nil},
		"terminal escapes":          {change("200 OK", "200 \x1b[2J\x1b]0;owned\x07OK"), nil},
	}
}

func manyParams(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, ";p%d", i)
	}
	return b.String()
}

func TestMatchAnswer(t *testing.T) {
	p := newAnswerParser()
	for name, c := range spoiled() {
		t.Run(name, func(t *testing.T) {
			a, err := matchAnswer(p, []byte(c.datagram), probeIDs)
			if !errors.Is(err, c.want) {
				t.Fatalf("%+v, %v; want %v", a, err, c.want)
			}
			if err == nil && a.Code == 0 {
				t.Fatalf("%+v", a)
			}
		})
	}
}

func TestNoProbeNoAnswer(t *testing.T) {
	if _, err := matchAnswer(newAnswerParser(), []byte(goodAnswer), ids{}); !errors.Is(err, errLate) {
		t.Fatalf("got %v: an answer counts while no probe is under way", err)
	}
}

func TestAnswerText(t *testing.T) {
	p := newAnswerParser()
	for _, c := range []struct{ name, datagram, phrase, server string }{
		{"Server", goodAnswer, "OK", "kamailio (5.6.3)"},
		{"User-Agent only", strings.Replace(goodAnswer, "Server:", "User-Agent:", 1), "OK", "kamailio (5.6.3)"},
		{"Server goes before User-Agent", strings.Replace(goodAnswer, "Server:", "User-Agent: ua\r\nServer:", 1), "OK", "kamailio (5.6.3)"},
		{"escapes", spoiled()["terminal escapes"].datagram, "[2J]0;ownedOK", "kamailio (5.6.3)"},
		{"length", strings.Replace(goodAnswer, "OK", strings.Repeat("é", 90), 1), strings.Repeat("é", 50), "kamailio (5.6.3)"},
		{"not UTF-8", strings.Replace(goodAnswer, "OK", "O\xff\xfeK", 1), "OK", "kamailio (5.6.3)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := matchAnswer(p, []byte(c.datagram), probeIDs)
			if err != nil || a.Phrase != c.phrase || a.Server != c.server {
				t.Fatalf("%q %q, %v; want %q %q", a.Phrase, a.Server, err, c.phrase, c.server)
			}
		})
	}
}

// TestWorstAnswersAreCheap: sipgo's parser compares each parameter's name with all before
// it. So the worst answers have as many parameters as fit, with the shortest names. They
// must cost no more than any other answer; this also holds for those that are still
// parsed.
func TestWorstAnswersAreCheap(t *testing.T) {
	most := (maxAnswer - len(goodAnswer)) / 4
	for name, answer := range map[string]func(n int) string{
		"parameters of To":   func(n int) string { return strings.Replace(goodAnswer, ";tag=x", shortParams(";", n), 1) },
		"parameters of From": func(n int) string { return strings.Replace(goodAnswer, ";tag=2", shortParams(";", n)+";tag=2", 1) },
		"of To's URI":        func(n int) string { return strings.Replace(goodAnswer, "5060>", "5060"+shortParams(";", n)+">", 1) },
		"headers in a URI":   func(n int) string { return strings.Replace(goodAnswer, "5060>", "5060?a=b"+shortParams("&", n)+">", 1) },
	} {
		for n, want := range map[int]error{maxParameters - 10: nil, most - 10: errMalformed} {
			what := fmt.Sprintf("%d %s", n, name)
			data := []byte(answer(n))
			if _, err := matchAnswer(newAnswerParser(), data, probeIDs); !errors.Is(err, want) || len(data) > maxAnswer {
				t.Errorf("%s, %d bytes: %v, want %v", what, len(data), err, want)
			}
			affordable(t, what, func() { _, _ = matchAnswer(newAnswerParser(), data, probeIDs) })
		}
	}
}

// shortParams returns n parameters, each with another name of three letters.
func shortParams(separator string, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	var b strings.Builder
	for i := range n {
		b.WriteString(separator)
		b.Write([]byte{letters[i/26/26%26], letters[i/26%26], letters[i%26]})
	}
	return b.String()
}

func TestParserPanicIsMalformed(t *testing.T) {
	p := sip.NewParser(sip.WithHeadersParsers(map[string]sip.HeaderParser{
		"via": func([]byte, string) (sip.Header, error) { panic("index out of range") },
	}))
	if _, err := matchAnswer(p, []byte(goodAnswer), probeIDs); !errors.Is(err, errMalformed) {
		t.Fatalf("got %v", err)
	}
}

// FuzzAnswer: no input panics, takes long, or counts for a probe that it does not name.
func FuzzAnswer(f *testing.F) {
	for _, c := range spoiled() {
		f.Add([]byte(c.datagram))
	}
	recorded, err := filepath.Glob("testdata/*.sip")
	if err != nil || len(recorded) == 0 {
		f.Fatal("no recorded answers", err)
	}
	for _, file := range recorded {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(perProbe.ReplaceAllFunc(b, func(line []byte) []byte {
			name, _, _ := strings.Cut(string(line), ":")
			return []byte(name + ": " + request(goodAnswer).header(name))
		}))
	}
	p := newAnswerParser()
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := matchAnswer(p, b, probeIDs)
		if err != nil {
			if a != (Answer{}) || !errors.Is(err, errLate) && !errors.Is(err, errMalformed) {
				t.Fatalf("%+v, %v", a, err)
			}
			return
		}
		s := string(b)
		if a.Code < 100 || a.Code > 699 || len(a.Phrase) > 100 || len(a.Server) > 100 ||
			!strings.Contains(s, probeIDs.branch) || !strings.Contains(s, probeIDs.callID) || len(b) > maxAnswer {
			t.Fatalf("took %q for an answer: %+v", b, a)
		}
		if _, err := matchAnswer(p, b, ids{branch: branchMagic + "ffffffffffffffff", callID: probeIDs.callID}); err == nil {
			t.Fatalf("%q answers any probe", b)
		}
	})
}
