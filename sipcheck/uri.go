package sipcheck

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// URI is the server that the ping command asks.
type URI struct {
	Host      string // an address without brackets, or a host name
	Port      uint16
	Transport Transport
}

func (u URI) String() string {
	s := "sip:" + net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
	if u.Transport != UDP {
		s += ";transport=" + u.Transport.String()
	}
	return s
}

// ParseURI reads sip:HOST[:PORT][;transport=udp|tcp|tls]; sips: means TLS. HOST is an
// IPv4 address, an IPv6 address in brackets or a host name. Everything else that a SIP
// URI may contain is refused with its own message: a ping asks a server, not a user.
func ParseURI(s string) (URI, error) {
	refuse := func(why string) (URI, error) {
		return URI{}, fmt.Errorf("SIP address %q: %s", s, why)
	}
	const form = "write sip:HOST[:PORT][;transport=tcp|tls]"
	scheme, rest, found := strings.Cut(s, ":")
	secure := strings.EqualFold(scheme, "sips")
	switch {
	case !found || !secure && !strings.EqualFold(scheme, "sip"):
		return refuse("does not begin with sip: (" + form + ")")
	case strings.Contains(rest, "@"):
		return refuse("has a user part, but OPTIONS asks the server (" + form + ")")
	case strings.Contains(rest, "?"):
		return refuse("has headers after ? (" + form + ")")
	}
	hostPort, params, _ := strings.Cut(rest, ";")
	by, why := transportParam(params, secure)
	if why != "" {
		return refuse(why)
	}
	u, why := parseHostPort(hostPort, by)
	if why != "" {
		return refuse(why + " (" + form + ")")
	}
	return u, nil
}

func transportParam(params string, secure bool) (by Transport, why string) {
	if secure {
		by = TLS
	}
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if param == "" {
			continue
		}
		if !strings.EqualFold(name, "transport") {
			return by, fmt.Sprintf("parameter %q is not known (only transport is)", name)
		}
		t, known := ParseTransport(strings.ToLower(value))
		switch {
		case !known:
			return by, fmt.Sprintf("transport %q is not known (udp, tcp or tls)", value)
		case secure && t == UDP:
			return by, "sips: goes over TLS, not over UDP (write sip:)"
		case !secure:
			by = t
		}
	}
	return by, ""
}

func parseHostPort(s string, by Transport) (u URI, why string) {
	u.Transport = by
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return URI{}, fmt.Sprintf("port %q is not a number from 1 to 65535", port)
		}
		u.Port = uint16(n)
	} else {
		u.Port = by.DefaultPort()
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !closed || err != nil || !a.Is6() {
			return URI{}, fmt.Sprintf("%q is not an IPv6 address in brackets", host)
		}
		u.Host = inner
		return u, ""
	}
	if !isHostName(host) {
		return URI{}, fmt.Sprintf("%q is neither an address nor a host name", host)
	}
	u.Host = host
	return u, ""
}

func isHostName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 253
}

// Resolve returns the address to send to. For a host name it is the first one found.
func (u URI) Resolve(ctx context.Context) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(u.Host); err == nil {
		return netip.AddrPortFrom(a.Unmap(), u.Port), nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("resolve %s: %w", u.Host, err)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), u.Port), nil
}
