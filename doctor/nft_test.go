package doctor

import (
	"net/netip"
	"os"
	"testing"
)

func ruleset(t *testing.T, name string) *Ruleset {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRuleset(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func incoming(protocol, from string, port uint16) Packet {
	a := netip.MustParseAddr(from)
	to := netip.MustParseAddr("192.0.2.11")
	if a.Is6() {
		to = netip.MustParseAddr("2001:db8::11")
	}
	return Packet{On: "eth0", Protocol: protocol,
		From: netip.AddrPortFrom(a, 7946), To: netip.AddrPortFrom(to, port)}
}

func outgoing(protocol, on string) Packet {
	return Packet{Leaving: true, On: on, Protocol: protocol,
		From: netip.MustParseAddrPort("192.0.2.11:7946"), To: netip.MustParseAddrPort("192.0.2.12:7946")}
}

// testdata/filter.nft has the rules as people write them, filter.json as nft 1.0.6 prints
// them.
func TestFate(t *testing.T) {
	r := ruleset(t, "filter.json")
	const in = "nft -a list chain inet filter input"
	for name, test := range map[string]struct {
		packet Packet
		want   Fate
	}{
		"accepted by an anonymous set":                {incoming("udp", "192.0.2.12", 7946), Fate{Sure: true}},
		"rejected by a prefix":                        {incoming("udp", "192.0.2.99", 7946), Fate{true, true, "rule 14 of chain input in table inet filter (reject)", in}},
		"dropped in a chain jumped to":                {incoming("udp", "192.0.2.7", 7946), Fate{true, true, "rule 6 of chain base in table inet filter (drop)", "nft -a list chain inet filter base"}},
		"a prefix in a named set":                     {incoming("udp", "10.1.2.3", 7946), Fate{true, true, "rule 6 of chain base in table inet filter (drop)", "nft -a list chain inet filter base"}},
		"dropped by the policy":                       {incoming("udp", "198.51.100.1", 7946), Fate{true, true, "the policy of chain input in table inet filter", in}},
		"a range of ports":                            {incoming("udp", "198.51.100.1", 5085), Fate{Sure: true}},
		"a limit may let it pass":                     {incoming("tcp", "198.51.100.1", 22), Fate{true, false, "the policy of chain input in table inet filter", in}},
		"past a verdict map, IPv6":                    {incoming("udp", "2001:db8::7", 7946), Fate{true, true, "rule 4 of chain six in table ip6 other (no cluster here)", "nft -a list chain ip6 other six"}},
		"out by an interface that is it":              {outgoing("udp", "eth0"), Fate{Sure: true}},
		"at ingress, of a device that is not printed": {incoming("udp", "192.0.2.66", 7946), Fate{true, true, "rule 14 of chain input in table inet filter (reject)", in}},
		"out by another":                              {outgoing("udp", "eth1"), Fate{true, true, "rule 17 of chain output in table inet filter (drop)", "nft -a list chain inet filter output"}},
	} {
		if got := r.Fate(test.packet); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// TestIptables: nft prints nothing about iptables' own matches. So a rule with one is
// named as one that may drop the packet, unless the rest of the rule does not match.
func TestIptables(t *testing.T) {
	r := ruleset(t, "iptables.json")
	const in = "nft -a list chain ip filter INPUT"
	for name, test := range map[string]struct {
		packet Packet
		want   Fate
	}{
		"DROP with multiport":                        {incoming("udp", "192.0.2.12", 7946), Fate{true, false, "rule 6 of chain INPUT in table ip filter (drop)", in}},
		"DROP with multiport, of TCP":                {incoming("tcp", "192.0.2.99", 7946), Fate{true, false, "rule 7 of chain INPUT in table ip filter (drop)", in}},
		"REJECT, behind what conntrack might accept": {incoming("tcp", "192.0.2.12", 7946), Fate{true, false, "rule 5 of chain INPUT in table ip filter (reject)", in}},
		"IPv6":        {incoming("udp", "2001:db8::12", 7946), Fate{Sure: true}},
		"what leaves": {outgoing("udp", "eth0"), Fate{Sure: true}},
	} {
		if got := r.Fate(test.packet); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestNoRulesDropNothing(t *testing.T) {
	r, err := ParseRuleset([]byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Fate(incoming("udp", "192.0.2.12", 7946)); got != (Fate{Sure: true}) {
		t.Errorf("%+v", got)
	}
}

// chainWith returns a rule set of one base chain.
func chainWith(t *testing.T, family, more, rules string) *Ruleset {
	t.Helper()
	r, err := ParseRuleset([]byte(`{"nftables": [{"chain": {"family": "` + family + `", "table": "t", "name": "c", "type": "filter", "prio": 0` + more + `}}, ` +
		`{"rule": {"family": "` + family + `", "table": "t", "chain": "c", "handle": 2, "expr": [` + rules + `]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A chain that drops before the hooks of the IP layer is seen, but only for its own
// device. A rule that may drop and is not understood makes an acceptance uncertain.
func TestDropsElsewhere(t *testing.T) {
	const by, list = "rule 2 of chain c in table netdev t (drop)", "nft -a list chain netdev t c"
	for name, test := range map[string]struct {
		rules *Ruleset
		want  Fate
	}{
		"at ingress":                  {chainWith(t, "netdev", `, "hook": "ingress", "dev": "eth0"`, `{"drop": null}`), Fate{true, true, by, list}},
		"at ingress of several":       {chainWith(t, "netdev", `, "hook": "ingress", "dev": ["eth0", "eth1"]`, `{"drop": null}`), Fate{true, true, by, list}},
		"at ingress of another":       {chainWith(t, "netdev", `, "hook": "ingress", "dev": "eth1"`, `{"drop": null}`), Fate{Sure: true}},
		"at ingress of who knows":     {chainWith(t, "netdev", `, "hook": "ingress"`, `{"drop": null}`), Fate{true, false, by, list}},
		"at egress, for what arrives": {chainWith(t, "netdev", `, "hook": "egress", "dev": "eth0"`, `{"drop": null}`), Fate{Sure: true}},
		"to a program's queue":        {chainWith(t, "ip", `, "hook": "input"`, `{"queue": {"num": 0}}`), Fate{}},
		"a target of iptables":        {chainWith(t, "ip", `, "hook": "input"`, `{"xt": {"type": "target", "name": "NFQUEUE"}}`), Fate{}},
		"iptables' REJECT":            {chainWith(t, "ip", `, "hook": "input"`, `{"xt": {"type": "target", "name": "REJECT"}}`), Fate{true, true, "rule 2 of chain c in table ip t (reject)", "nft -a list chain ip t c"}},
		"iptables' REJECT behind a match": {chainWith(t, "ip", `, "hook": "input"`, `{"xt": {"type": "match", "name": "multiport"}}, {"xt": {"type": "target", "name": "REJECT"}}`),
			Fate{true, false, "rule 2 of chain c in table ip t (reject)", "nft -a list chain ip t c"}},
		"a limit that drops":             {chainWith(t, "ip", `, "hook": "input"`, `{"limit": {"rate": 1, "per": "second", "inv": true}}, {"drop": null}`), Fate{true, false, "rule 2 of chain c in table ip t (drop)", "nft -a list chain ip t c"}},
		"a map behind a limit":           {chainWith(t, "ip", `, "hook": "input"`, `{"limit": {"rate": 1, "per": "second"}}, {"vmap": {"key": {"meta": {"key": "l4proto"}}, "data": {"set": [["udp", {"drop": null}]]}}}`), Fate{}},
		"a match of iptables, no target": {chainWith(t, "ip", `, "hook": "input"`, `{"xt": {"type": "match", "name": "comment"}}`), Fate{Sure: true}},
	} {
		if got := test.rules.Fate(incoming("udp", "192.0.2.12", 7946)); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// The walk through chains that jump to each other ends, without certainty.
func TestJumpsEnd(t *testing.T) {
	const jump = `{"rule": {"family": "ip", "table": "t", "chain": "a", "handle": 2, "expr": [{"jump": {"target": "a"}}]}}`
	r, err := ParseRuleset([]byte(`{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "a", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},` +
		jump + "," + jump + "," + jump + "," + jump + "]}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Fate(incoming("udp", "192.0.2.12", 7946)); got != (Fate{}) {
		t.Errorf("%+v, want no certainty", got)
	}
}

// Input that no version of nft prints causes neither a panic nor certainty.
func FuzzRuleset(f *testing.F) {
	text, err := os.ReadFile("testdata/filter.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := ParseRuleset(text); err == nil {
			r.Fate(incoming("udp", "192.0.2.12", 7946))
			r.Fate(outgoing("tcp", "eth0"))
		}
	})
}
