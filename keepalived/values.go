package keepalived

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// account returns a user name that sipalive accepts, or "".
func (s *site) account(line int, name string) string {
	if name == "" || name == clean(name) && len(name) <= 32 {
		return name
	}
	s.note(line, "user "+name, "not a user's name")
	return ""
}

func on(st statement) bool {
	return !slices.Contains([]string{"false", "off", "no"}, strings.ToLower(st.arg(1)))
}

// parseAddress reads 192.0.2.1 or 192.0.2.1/24; mask is -1 if there is none.
func parseAddress(word string) (ip netip.Addr, mask int, err error) {
	if !strings.Contains(word, "/") {
		ip, err = netip.ParseAddr(word)
		return ip.Unmap(), -1, err
	}
	p, err := netip.ParsePrefix(word)
	return p.Addr().Unmap(), p.Bits(), err
}

// seconds reads keepalived's numbers of seconds, such as 1 and 0.05. It returns 0 for
// anything else.
func seconds(word string) time.Duration {
	f, err := strconv.ParseFloat(word, 64)
	if err != nil || f != f || f < 0 || f > 24*3600 {
		return 0
	}
	return time.Duration(f * float64(time.Second)).Round(time.Millisecond)
}

func number(word string, def int) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		return def
	}
	return n
}

// endpoint joins the host and port that keepalived writes as two words.
func endpoint(host, port string) string {
	if port == "" {
		port = "25"
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}
