package doctor

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// answer has three values, because some rules depend on facts that are not known here.
type answer int

const (
	no answer = iota
	maybe
	yes
)

func not(a answer) answer { return yes - a }

func is(b bool) answer {
	if b {
		return yes
	}
	return no
}

// match compares a rule's condition with the packet.
func (w *walk) match(c *chain, body any) answer {
	m, _ := body.(map[string]any)
	op, _ := m["op"].(string)
	have := w.field(m["left"])
	switch {
	case have == nil:
		return maybe
	case have[0] == otherFamily:
		return no
	}
	found := w.holds(c, m["right"], have)
	switch op {
	case "==", "in":
		return found
	case "!=":
		return not(found)
	}
	return maybe
}

// otherFamily stands for a field that the packet does not have. A rule that asks for it
// does not match, whatever its operator.
const otherFamily = "\x00"

// field returns the packet's value for a rule's left side. Several values mean that any
// of them will do; nil means that it is not known here.
func (w *walk) field(left any) []string {
	l, _ := left.(map[string]any)
	if payload, of := l["payload"].(map[string]any); of {
		protocol, _ := payload["protocol"].(string)
		name, _ := payload["field"].(string)
		return w.header(protocol, name)
	}
	if ct, of := l["ct"].(map[string]any); of && ct["key"] == "state" {
		return []string{"new"}
	}
	meta, _ := l["meta"].(map[string]any)
	switch meta["key"] {
	case "iifname", "iif", "oifname", "oif":
		if strings.HasPrefix(meta["key"].(string), "o") != w.p.Leaving {
			return []string{otherFamily} // an arriving packet has no output interface, and the reverse
		}
		return []string{w.p.On}
	case "l4proto":
		return []string{w.p.Protocol, map[string]string{"udp": "17", "tcp": "6"}[w.p.Protocol]}
	case "nfproto", "protocol":
		if w.p.From.Addr().Is4() {
			return []string{"ipv4", "ip", "2"}
		}
		return []string{"ipv6", "ip6", "10"}
	case "pkttype":
		return []string{"host", "unicast"}
	}
	return nil
}

func (w *walk) header(protocol, name string) []string {
	from, to := w.p.From, w.p.To
	family := "ip"
	if from.Addr().Is6() {
		family = "ip6"
	}
	switch {
	case protocol == "ip" || protocol == "ip6":
		if protocol != family {
			return []string{otherFamily}
		}
		switch name {
		case "saddr":
			return []string{from.Addr().String()}
		case "daddr":
			return []string{to.Addr().String()}
		case "protocol", "nexthdr":
			return []string{w.p.Protocol}
		}
	case protocol == w.p.Protocol || protocol == "th":
		switch name {
		case "sport":
			return []string{strconv.Itoa(int(from.Port()))}
		case "dport":
			return []string{strconv.Itoa(int(to.Port()))}
		}
	case slices.Contains([]string{"udp", "tcp", "icmp", "icmpv6", "sctp", "dccp", "esp", "ah", "igmp"}, protocol):
		return []string{otherFamily}
	}
	return nil
}

// holds reports whether a rule's right side contains one of the values.
func (w *walk) holds(c *chain, right any, have []string) answer {
	switch r := right.(type) {
	case string:
		if name, named := strings.CutPrefix(r, "@"); named {
			elements, known := w.r.sets[id(c.Family, c.Table, name)]
			if !known {
				return maybe
			}
			return w.anyOf(c, elements, have)
		}
		return is(slices.ContainsFunc(have, func(h string) bool { return same(r, h) }))
	case float64:
		return is(slices.Contains(have, strconv.FormatFloat(r, 'f', -1, 64)))
	case []any:
		return w.anyOf(c, r, have)
	case map[string]any:
		return w.composed(c, r, have)
	}
	return maybe
}

func (w *walk) anyOf(c *chain, elements []any, have []string) answer {
	best := no
	for _, e := range elements {
		best = max(best, w.holds(c, e, have))
	}
	return best
}

func (w *walk) composed(c *chain, r map[string]any, have []string) answer {
	if members, of := r["set"].([]any); of {
		return w.anyOf(c, members, have)
	}
	if elem, of := r["elem"].(map[string]any); of { // an element with a timeout or a comment
		return w.holds(c, elem["val"], have)
	}
	if p, of := r["prefix"].(map[string]any); of {
		text, _ := p["addr"].(string)
		bits, _ := p["len"].(float64)
		a, err := netip.ParseAddr(text)
		have, haveErr := netip.ParseAddr(have[0])
		if err != nil || haveErr != nil {
			return maybe
		}
		return is(netip.PrefixFrom(a, int(bits)).Contains(have))
	}
	if ends, of := r["range"].([]any); of && len(ends) == 2 {
		return between(ends[0], ends[1], have[0])
	}
	return maybe
}

func between(low, high any, have string) answer {
	if lo, is64 := low.(float64); is64 {
		hi, _ := high.(float64)
		n, err := strconv.ParseFloat(have, 64)
		if err != nil {
			return maybe
		}
		return is(lo <= n && n <= hi)
	}
	lo, hi := text(low), text(high)
	a, errA := netip.ParseAddr(lo)
	b, errB := netip.ParseAddr(hi)
	h, errH := netip.ParseAddr(have)
	if errA != nil || errB != nil || errH != nil {
		return maybe
	}
	return is(a.Compare(h) <= 0 && h.Compare(b) <= 0)
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// same compares names. A name that ends with * is a prefix (for interfaces).
func same(want, have string) bool {
	if begin, wild := strings.CutSuffix(want, "*"); wild {
		return strings.HasPrefix(have, begin)
	}
	return want == have
}

// look finds the packet's verdict in a verdict map. kind is "" if the map has none for
// it, "?" if the map is not understood.
func (w *walk) look(c *chain, body any) (kind string, verdict any) {
	m, _ := body.(map[string]any)
	have := w.field(m["key"])
	if have == nil {
		return "?", nil
	}
	if have[0] == otherFamily {
		return "", nil
	}
	var pairs []any
	switch data := m["data"].(type) {
	case string:
		pairs = w.r.sets[id(c.Family, c.Table, strings.TrimPrefix(data, "@"))]
	case map[string]any:
		pairs, _ = data["set"].([]any)
	}
	for _, p := range pairs {
		pair, _ := p.([]any)
		if len(pair) != 2 {
			return "?", nil
		}
		switch w.holds(c, pair[0], have) {
		case maybe:
			return "?", nil
		case yes:
			verdicts, _ := pair[1].(map[string]any)
			for kind, body := range verdicts {
				return kind, body
			}
		}
	}
	return "", nil
}
