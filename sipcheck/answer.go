package sipcheck

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"
)

// maxAnswer and maxParameters bound what the parser gets. Real answers to OPTIONS have
// 500 to 2,500 bytes and a dozen parameters. sipgo's parser is quadratic in the number of
// parameters of one header, and of headers in a URI: 4,000 of them, in 16 KiB, cost 175
// ms; 500 cost 3 ms (measured).
const (
	maxAnswer     = 16 << 10
	maxParameters = 500
)

var (
	// errLate: a SIP message, but not about the probe under way.
	errLate = errors.New("not an answer to the probe under way")
	// errMalformed: not a response, or a response that no parser needs to accept.
	errMalformed = errors.New("malformed answer")
)

// newAnswerParser makes a parser for only the headers that decide. So a Contact or Route
// that sipgo cannot read does not make a server dead. Via is not parsed: sipgo loses its
// parameters if a space stands before one of them, which RFC 3261 allows.
func newAnswerParser() *sip.Parser {
	all := sip.DefaultHeadersParser()
	known := map[string]sip.HeaderParser{}
	for _, name := range []string{"call-id", "i", "cseq", "from", "f", "to", "t", "content-length", "l"} {
		known[name] = all[name]
	}
	p := sip.NewParser(sip.WithHeadersParsers(known))
	p.MaxMessageLength = maxAnswer
	return p
}

// matchAnswer reports whether the datagram answers the probe with these ids: its top Via
// has the probe's branch, and it has the probe's Call-ID and CSeq (RFC 3261 §17.1.3). The
// cheap tests come first, so each packet of a flood costs one search in memory.
func matchAnswer(p *sip.Parser, datagram []byte, id ids) (Answer, error) {
	switch {
	case !bytes.HasPrefix(datagram, []byte("SIP/2.0 ")):
		return Answer{}, errMalformed
	case id.branch == "" || !bytes.Contains(datagram, []byte(id.branch)):
		return Answer{}, errLate
	case parameters(datagram) > maxParameters:
		return Answer{}, errMalformed
	}
	res, err := parseResponse(p, datagram)
	if err != nil {
		return Answer{}, err
	}
	if res.StatusCode < 100 || res.StatusCode > 699 || !aboutProbe(res, id) {
		return Answer{}, errMalformed
	}
	return Answer{
		Code:   res.StatusCode,
		Phrase: printable(res.Reason),
		Server: serverName(res),
	}, nil
}

// parameters counts the separators of parameters (; and &) in all headers.
func parameters(datagram []byte) int {
	head, _, _ := bytes.Cut(datagram, []byte("\r\n\r\n"))
	return bytes.Count(head, []byte(";")) + bytes.Count(head, []byte("&"))
}

// parseResponse turns a panic of the parser into a malformed answer: the parser's input
// comes from the network, and this process holds VIPs.
func parseResponse(p *sip.Parser, datagram []byte) (res *sip.Response, err error) {
	defer func() {
		if r := recover(); r != nil {
			res, err = nil, fmt.Errorf("%w: parser: %v", errMalformed, r)
		}
	}()
	msg, err := p.ParseSIP(datagram)
	if err != nil {
		return nil, errMalformed
	}
	res, ok := msg.(*sip.Response)
	if !ok {
		return nil, errMalformed
	}
	return res, nil
}

func aboutProbe(res *sip.Response, id ids) bool {
	callID, cseq := res.CallID(), res.CSeq()
	if callID == nil || cseq == nil || res.From() == nil || res.To() == nil {
		return false
	}
	return string(*callID) == id.callID &&
		cseq.SeqNo == probeCSeq && strings.TrimSpace(string(cseq.MethodName)) == "OPTIONS" &&
		strings.Contains(topVia(res), id.branch)
}

func topVia(res *sip.Response) string {
	for _, h := range res.Headers() {
		if n := h.Name(); strings.EqualFold(n, "via") || strings.EqualFold(n, "v") {
			first, _, _ := strings.Cut(h.Value(), ",")
			return first
		}
	}
	return ""
}

// serverName returns the server's name for itself: the Server header (RFC 3261 §20.35),
// or else User-Agent, which FreeSWITCH sends.
func serverName(res *sip.Response) string {
	name := ""
	for _, h := range res.Headers() {
		switch n := h.Name(); {
		case strings.EqualFold(n, "server"):
			return printable(h.Value())
		case name == "" && strings.EqualFold(n, "user-agent"):
			name = printable(h.Value())
		}
	}
	return name
}

// printable makes text from the network safe for a terminal and a journal. It returns a
// copy, so that the datagram's memory can be freed.
func printable(s string) string {
	const most = 100
	s = s[:min(len(s), most)]
	clean := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.Clone(clean)
}
