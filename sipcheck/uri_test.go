package sipcheck

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	for in, want := range map[string]URI{
		"sip:192.0.2.11":                         {"192.0.2.11", 5060},
		"sip:192.0.2.11:5080":                    {"192.0.2.11", 5080},
		"SIP:pbx1.example.net:5080":              {"pbx1.example.net", 5080},
		"sip:[2001:db8::1]":                      {"2001:db8::1", 5060},
		"sip:[2001:db8::1]:5070;transport=UDP":   {"2001:db8::1", 5070},
		"sip:[fe80::1%eth0]":                     {"fe80::1%eth0", 5060},
		"sip:192.0.2.11;transport=udp":           {"192.0.2.11", 5060},
		"sip:192.0.2.11:5061;transport=udp;":     {"192.0.2.11", 5061},
		"sip:pbx_1:65535":                        {"pbx_1", 65535},
		"sip:" + strings.Repeat("a", 253) + ":1": {strings.Repeat("a", 253), 1},
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
	const form = " (write sip:HOST[:PORT][;transport=udp])"
	for in, want := range map[string]string{
		"":                             `does not begin with sip:` + form,
		"192.0.2.11":                   `does not begin with sip:` + form,
		"192.0.2.11:5060":              `does not begin with sip:` + form,
		"http://192.0.2.11":            `does not begin with sip:` + form,
		"sips:192.0.2.11":              `TLS is not supported yet` + form,
		"sip:192.0.2.11;transport=tls": `transport "tls" is not supported yet (only udp is)`,
		"sip:192.0.2.11;transport=tcp": `transport "tcp" is not supported yet (only udp is)`,
		"sip:192.0.2.11;transport":     `transport "" is not supported yet (only udp is)`,
		"sip:192.0.2.11;lr":            `parameter "lr" is not known (only transport=udp is)`,
		"sip:ping@192.0.2.11":          `has a user part, but OPTIONS asks the server` + form,
		"sip:192.0.2.11?Subject=x":     `has headers after ?` + form,
		"sip:":                         `"" is neither an address nor a host name` + form,
		"sip::5060":                    `"" is neither an address nor a host name` + form,
		"sip:192.0.2.11:":              `port "" is not a number from 1 to 65535` + form,
		"sip:192.0.2.11:0":             `port "0" is not a number from 1 to 65535` + form,
		"sip:192.0.2.11:65536":         `port "65536" is not a number from 1 to 65535` + form,
		"sip:192.0.2.11:sip":           `port "sip" is not a number from 1 to 65535` + form,
		"sip:2001:db8::1":              `"2001:db8:" is neither an address nor a host name` + form,
		"sip:[2001:db8::1":             `"[2001:db8:" is not an IPv6 address in brackets` + form,
		"sip:[192.0.2.11]":             `"[192.0.2.11]" is not an IPv6 address in brackets` + form,
		"sip:pbx 1":                    `"pbx 1" is neither an address nor a host name` + form,
		"sip:pbx\r\nX: y":              `port " y" is not a number from 1 to 65535` + form,
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
		{URI{"127.0.0.1", 5060}, "127.0.0.1:5060"},
		{URI{"::ffff:127.0.0.1", 5060}, "127.0.0.1:5060"},
		{URI{"fe80::1%lo", 5060}, "[fe80::1%lo]:5060"},
	} {
		got, err := c.u.Resolve(t.Context())
		if err != nil || got != netip.MustParseAddrPort(c.want) {
			t.Errorf("%v: %v, %v", c.u, got, err)
		}
	}
	if got, err := (URI{"localhost", 5060}).Resolve(t.Context()); err != nil || !got.Addr().IsLoopback() {
		t.Errorf("localhost: %v, %v", got, err)
	}
	if _, err := (URI{"no-such-host.invalid", 5060}).Resolve(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "resolve no-such-host.invalid: ") {
		t.Errorf("got %v", err)
	}
}
