package sipcheck

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

func fixedRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestOptionsMessage(t *testing.T) {
	id := ids{branch: "z9hG4bK0123456789abcdef", callID: "1123456789abcdef", tag: "2123456789abcdef"}
	for _, c := range []struct{ name, local, remote, host, from, to string }{
		{"IPv4", "192.0.2.11:40000", "192.0.2.12:5060", "192.0.2.11", "192.0.2.11:40000", "192.0.2.12:5060"},
		{"IPv6", "[2001:db8::1]:40000", "[2001:db8::2]:5060", "[2001:db8::1]", "[2001:db8::1]:40000", "[2001:db8::2]:5060"},
		{"link-local without its zone", "[fe80::1%eth0]:40000", "[fe80::2%eth0]:5060", "[fe80::1]", "[fe80::1]:40000", "[fe80::2]:5060"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.11]:40000", "[::ffff:192.0.2.12]:5060", "192.0.2.11", "192.0.2.11:40000", "192.0.2.12:5060"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := string(appendOptions(nil, id, UDP, netip.MustParseAddrPort(c.local), netip.MustParseAddrPort(c.remote), "sipalive"))
			want := strings.Join([]string{
				"OPTIONS sip:" + c.to + " SIP/2.0",
				"Via: SIP/2.0/UDP " + c.from + ";rport;branch=z9hG4bK0123456789abcdef",
				"Max-Forwards: 70",
				"From: <sip:ping@" + c.host + ">;tag=2123456789abcdef",
				"To: <sip:" + c.to + ">",
				"Call-ID: 1123456789abcdef",
				"CSeq: 1 OPTIONS",
				"Contact: <sip:" + c.from + ">",
				"User-Agent: sipalive",
				"Accept: application/sdp",
				"Content-Length: 0",
				"", "",
			}, "\r\n")
			if got != want {
				t.Fatalf("got\n%s\nwant\n%s", got, want)
			}
			msg, err := sip.ParseMessage([]byte(got))
			if err != nil {
				t.Fatal(err)
			}
			req := msg.(*sip.Request)
			if req.Recipient.User != "" || req.GetHeader("Require") != nil || req.To().Params.Has("tag") {
				t.Fatalf("user part, Require or To tag in\n%s", got)
			}
		})
	}
}

func TestOptionsMessageSaysItsTransport(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.12:5061")
	for by, words := range map[Transport][]string{
		UDP: {"OPTIONS sip:192.0.2.12:5061 SIP", "Via: SIP/2.0/UDP ", "Contact: <sip:192.0.2.12:5061>"},
		TCP: {"OPTIONS sip:192.0.2.12:5061;transport=tcp SIP", "Via: SIP/2.0/TCP ", "Contact: <sip:192.0.2.12:5061;transport=tcp>"},
		TLS: {"OPTIONS sip:192.0.2.12:5061;transport=tls SIP", "Via: SIP/2.0/TLS ", "Contact: <sip:192.0.2.12:5061;transport=tls>"},
	} {
		got := string(appendOptions(nil, newIDs(fixedRand()), by, at, at, "sipalive"))
		for _, w := range words {
			if !strings.Contains(got, w) {
				t.Errorf("%v: no %q in\n%s", by, w, got)
			}
		}
	}
}

func TestUserAgentCannotEndItsHeader(t *testing.T) {
	b := appendOptions(nil, newIDs(fixedRand()), UDP, netip.MustParseAddrPort("127.0.0.1:1"),
		netip.MustParseAddrPort("127.0.0.1:2"), "pbx\r\nRoute: <sip:evil>\x00\x7f")
	if !strings.Contains(string(b), "\r\nUser-Agent: pbxRoute: <sip:evil>\r\n") {
		t.Fatalf("got\n%s", b)
	}
}

func TestIDsAreFresh(t *testing.T) {
	r, seen := fixedRand(), map[string]bool{}
	for range 1000 {
		id := newIDs(r)
		for _, s := range []string{id.branch, id.callID, id.tag} {
			if seen[s] || len(strings.TrimPrefix(s, branchMagic)) != 16 {
				t.Fatalf("%q seen before, or not 16 digits", s)
			}
			seen[s] = true
		}
		if !strings.HasPrefix(id.branch, branchMagic) {
			t.Fatalf("branch %q", id.branch)
		}
	}
}

func TestBuildingCostsNoMemory(t *testing.T) {
	id, buf := newIDs(fixedRand()), make([]byte, 0, 1024)
	a := netip.MustParseAddrPort("192.0.2.11:5060")
	if n := testing.AllocsPerRun(100, func() { buf = appendOptions(buf[:0], id, UDP, a, a, "sipalive") }); n != 0 {
		t.Fatalf("%v allocations for one message", n)
	}
}
