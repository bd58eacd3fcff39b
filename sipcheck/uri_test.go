package sipcheck

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	for in, want := range map[string]URI{
		"sip:192.0.2.11":                         {"192.0.2.11", 5060, UDP},
		"sip:192.0.2.11:5080":                    {"192.0.2.11", 5080, UDP},
		"SIP:pbx1.example.net:5080":              {"pbx1.example.net", 5080, UDP},
		"sip:[2001:db8::1]":                      {"2001:db8::1", 5060, UDP},
		"sip:[2001:db8::1]:5070;transport=UDP":   {"2001:db8::1", 5070, UDP},
		"sip:[fe80::1%eth0]":                     {"fe80::1%eth0", 5060, UDP},
		"sip:192.0.2.11;transport=udp":           {"192.0.2.11", 5060, UDP},
		"sip:192.0.2.11:5061;transport=udp;":     {"192.0.2.11", 5061, UDP},
		"sip:192.0.2.11;transport=tcp":           {"192.0.2.11", 5060, TCP},
		"sip:192.0.2.11;transport=TLS":           {"192.0.2.11", 5061, TLS},
		"sip:[2001:db8::1]:5070;transport=tls":   {"2001:db8::1", 5070, TLS},
		"sips:pbx1.example.net":                  {"pbx1.example.net", 5061, TLS},
		"sips:pbx1.example.net;transport=tcp":    {"pbx1.example.net", 5061, TLS}, // RFC 3261 26.2.2: TLS over TCP
		"sip:pbx_1:65535":                        {"pbx_1", 65535, UDP},
		"sip:" + strings.Repeat("a", 253) + ":1": {strings.Repeat("a", 253), 1, UDP},
	} {
		got, err := ParseURI(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
		if again, err := ParseURI(got.String()); err != nil || again != got {
			t.Errorf("%s: %s reads back as %+v, %v", in, got, again, err)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	const form = " (write sip:HOST[:PORT][;transport=tcp|tls])"
	for in, want := range map[string]string{
		"":                              `does not begin with sip:` + form,
		"192.0.2.11":                    `does not begin with sip:` + form,
		"192.0.2.11:5060":               `does not begin with sip:` + form,
		"http://192.0.2.11":             `does not begin with sip:` + form,
		"sips:192.0.2.11;transport=udp": `sips: goes over TLS, not over UDP (write sip:)`,
		"sip:192.0.2.11;transport=sctp": `transport "sctp" is not known (udp, tcp or tls)`,
		"sip:192.0.2.11;transport":      `transport "" is not known (udp, tcp or tls)`,
		"sip:192.0.2.11;lr":             `parameter "lr" is not known (only transport is)`,
		"sip:ping@192.0.2.11":           `has a user part, but OPTIONS asks the server` + form,
		"sip:192.0.2.11?Subject=x":      `has headers after ?` + form,
		"sip:":                          `"" is neither an address nor a host name` + form,
		"sip::5060":                     `"" is neither an address nor a host name` + form,
		"sip:192.0.2.11:":               `port "" is not a number from 1 to 65535` + form,
		"sip:192.0.2.11:0":              `port "0" is not a number from 1 to 65535` + form,
		"sip:192.0.2.11:65536":          `port "65536" is not a number from 1 to 65535` + form,
		"sip:192.0.2.11:sip":            `port "sip" is not a number from 1 to 65535` + form,
		"sip:2001:db8::1":               `"2001:db8:" is neither an address nor a host name` + form,
		"sip:[2001:db8::1":              `"[2001:db8:" is not an IPv6 address in brackets` + form,
		"sip:[192.0.2.11]":              `"[192.0.2.11]" is not an IPv6 address in brackets` + form,
		"sip:pbx 1":                     `"pbx 1" is neither an address nor a host name` + form,
		"sip:pbx\r\nX: y":               `port " y" is not a number from 1 to 65535` + form,
	} {
		_, err := ParseURI(in)
		if err == nil || !strings.HasSuffix(err.Error(), ": "+want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		u    URI
		want string
	}{
		{URI{"127.0.0.1", 5060, UDP}, "127.0.0.1:5060"},
		{URI{"::ffff:127.0.0.1", 5060, UDP}, "127.0.0.1:5060"},
		{URI{"fe80::1%lo", 5060, UDP}, "[fe80::1%lo]:5060"},
	} {
		got, err := c.u.Resolve(t.Context())
		if err != nil || got != netip.MustParseAddrPort(c.want) {
			t.Errorf("%v: %v, %v", c.u, got, err)
		}
	}
	if got, err := (URI{"localhost", 5060, UDP}).Resolve(t.Context()); err != nil || !got.Addr().IsLoopback() {
		t.Errorf("localhost: %v, %v", got, err)
	}
	if _, err := (URI{"no-such-host.invalid", 5060, UDP}).Resolve(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "resolve no-such-host.invalid: ") {
		t.Errorf("got %v", err)
	}
}
