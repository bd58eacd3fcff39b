package keepalived

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const maxName = 63

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// clean returns a name that sipalive accepts: other characters become -. It returns "" if
// nothing is left, or an IP address.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if isAlphanumeric(r) || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, name)
	name = strings.TrimLeft(name, ".-_")
	name = name[:min(len(name), maxName)]
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return name
}

// unused returns a clean name for which taken is false, with a number if necessary.
func unused(name, otherwise string, taken func(string) bool) string {
	base := clean(name)
	if base == "" {
		base = otherwise
	}
	for n, try := 2, base; ; n++ {
		if !taken(try) {
			return try
		}
		suffix := "-" + strconv.Itoa(n)
		try = base[:min(len(base), maxName-len(suffix))] + suffix
	}
}

// isInterface reports whether the kernel allows the name (dev_valid_name of Linux).
func isInterface(name string) bool {
	return name != "" && len(name) < 16 && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '/' || r == ':'
	})
}

// isEndpoint reports whether s is host:port.
func isEndpoint(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return false
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || port == 0 {
		return false
	}
	host := s[:i]
	if inside, is := strings.CutPrefix(host, "["); is {
		_, err := netip.ParseAddr(strings.TrimSuffix(inside, "]"))
		return err == nil && strings.HasSuffix(host, "]")
	}
	return clean(host) == host || isIPv4(host)
}

func isIPv4(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Is4()
}

// quoted returns s as a TOML basic string.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
