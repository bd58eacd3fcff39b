package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxName is the longest name, as in a DNS label.
const maxName = 63

// name reads a required name: [A-Za-z0-9._-], beginning with a letter or digit, so that
// it can be a file name and a command's argument. It is never an IP address, since a
// role's name and a VIP's address both identify a lease.
func (t *table) name(key, example string) string {
	s := t.required(key, example)
	t.checkName(key, s)
	return s
}

// nameOr reads a name with a default.
func (t *table) nameOr(key, def string) string {
	s := t.text(key, def, def)
	if s == "" {
		t.fail(key, "%s is empty; e.g. %s = %q", key, key, def)
	}
	t.checkName(key, s)
	return s
}

func (t *table) checkName(key, s string) {
	odd := func(r rune) bool { return !isNameRune(r) }
	_, err := netip.ParseAddr(s)
	switch {
	case s == "":
	case len(s) > maxName:
		t.fail(key, "%s: %d characters are too many; at most %d", key, len(s), maxName)
	case strings.ContainsFunc(s, odd):
		t.fail(key, "%s = %q: only letters A-Z a-z, digits and . _ - are allowed", key, s)
	case !isAlphanumeric(rune(s[0])):
		t.fail(key, "%s = %q: must begin with a letter or digit", key, s)
	case err == nil:
		t.fail(key, "%s = %q: an IP address is no name; choose another", key, s)
	}
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func isNameRune(r rune) bool { return isAlphanumeric(r) || r == '.' || r == '_' || r == '-' }

// path reads an absolute path. Without a default it is required.
func (t *table) path(key, def, example string) string {
	var s string
	if def == "" {
		s = t.required(key, example)
	} else {
		s = t.text(key, def, example)
	}
	switch {
	case s == "" && (def == "" || !t.has(key)):
	case strings.ContainsFunc(s, isControl):
		t.fail(key, "%s = %q: a path without control characters is needed, e.g. %q", key, s, example)
	case !filepath.IsAbs(s):
		t.fail(key, "%s = %q: an absolute path is needed, e.g. %q", key, s, example)
	}
	return s
}

// address reads an address that one machine can have. If it is not required, "" means
// none.
func (t *table) address(key, example string, required bool) netip.Addr {
	var s string
	if required {
		s = t.required(key, example)
	} else {
		s = t.text(key, "", example)
	}
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	why := ""
	switch {
	case err != nil && strings.Contains(s, "/"):
		why = "no prefix length here, an address alone"
	case err != nil:
		why = "not an IP address (names are not looked up)"
	case a.Is4In6():
		why = "an IPv4 address is written without ::ffff: before it"
	case a.Zone() != "" && key == "gateway":
		why = "no zone here, the VIP's interface is meant"
	case a.Zone() != "" || a.Is6() && a.IsLinkLocalUnicast() && key != "gateway":
		why = "a link-local address is not the same on every node"
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		why = "the unspecified network is no machine's address"
	case a.IsMulticast():
		why = "a multicast address is no machine's address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		why = "the broadcast address is no machine's address"
	default:
		return a
	}
	t.fail(key, "%s = %q: %s; e.g. %s = %q", key, s, why, key, example)
	return netip.Addr{}
}

// endpoint reads host:port.
func (t *table) endpoint(key, def string) string {
	s := t.text(key, def, def)
	if why := badEndpoint(s); why != "" {
		t.fail(key, "%s = %q: %s, e.g. %q", key, s, why, def)
	}
	return s
}

// badEndpoint says what is wrong with a host:port; "" means nothing is.
func badEndpoint(s string) string {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "must be host:port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "must be host:port with a port between 1 and 65535"
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsFunc(host, func(r rune) bool { return !isNameRune(r) }) {
		return "must be host:port with an IP address or host name"
	}
	return ""
}

// optionalPath reads an absolute path; "" means none.
func (t *table) optionalPath(key, example string) string {
	s := t.text(key, "", example)
	if s != "" && (!filepath.IsAbs(s) || strings.ContainsFunc(s, isControl)) {
		t.fail(key, "%s = %q: an absolute path is needed, e.g. %q", key, s, example)
	}
	return s
}

// listener reads udp:PORT, tcp:PORT or tls:PORT.
func (t *table) listener(key string, def uint16) (transport string, port uint16) {
	s := t.text(key, "udp:"+strconv.Itoa(int(def)), "udp:5060")
	transport, text, found := strings.Cut(s, ":")
	n, err := strconv.ParseUint(text, 10, 16)
	known := slices.Contains([]string{"udp", "tcp", "tls"}, transport)
	if !found || !known || err != nil || n == 0 {
		t.fail(key, "%s = %q: must be udp:PORT, tcp:PORT or tls:PORT with a port between 1 and 65535, e.g. \"udp:5060\"", key, s)
		return "udp", def
	}
	return transport, uint16(n)
}

// codes reads an array of SIP status codes. The result is sorted and has each code once.
func (t *table) codes(key string, def []int) []int {
	list := scalar(t, key, []any(nil), "an array of SIP status codes", "[503]")
	if !t.has(key) {
		return def
	}
	var out []int
	for i, v := range list {
		n, ok := v.(int64)
		switch {
		case !ok:
			t.failItem(key, i, "%s: a SIP status code is a whole number, not %s; e.g. %s = [503]", key, kind(v), key)
		case n < 100 || n > 699:
			t.failItem(key, i, "%s: %d is no SIP status code; they are 100 to 699", key, n)
		}
		out = append(out, int(n))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// userAgent reads text that goes into a SIP header unchanged, so it has no line breaks.
func (t *table) userAgent(key, def string) string {
	s := t.text(key, def, def)
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if s == "" || len(s) > maxName || strings.TrimSpace(s) != s || strings.ContainsFunc(s, odd) {
		t.fail(key, "%s = %q: 1 to %d printable ASCII characters are needed, without a space at either end; e.g. %q", key, s, maxName, def)
	}
	return s
}

// ifname reads the name of a network interface as Linux allows it (dev_valid_name in
// net/core/dev.c); "" means the interface of the node's address.
func (t *table) ifname(key string) string {
	s := t.text(key, "", "eth0")
	odd := func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	if len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, odd) {
		t.fail(key, "%s = %q: not an interface name, which has at most 15 characters, no space, / or :; see `ip link`", key, s)
	}
	return s
}

// group reads the name of a unix group as groupadd allows it; "" means root only.
func (t *table) group(key, def string) string {
	s := t.text(key, def, def)
	odd := func(r rune) bool { return !isNameRune(r) }
	if len(s) > 32 || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, odd) {
		t.fail(key, "%s = %q: not a group name; e.g. %q, or \"\" for root only", key, s, def)
	}
	return s
}

// listen reads the IP:port to serve at; "" means none.
func (t *table) listen(key string) netip.AddrPort {
	const example = "127.0.0.1:9480"
	s := t.text(key, "", example)
	if s == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		t.fail(key, "%s = %q: must be IP:port with a port between 1 and 65535 (names are not looked up), e.g. %q", key, s, example)
		return netip.AddrPort{}
	}
	return a
}
