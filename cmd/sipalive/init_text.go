package main

import (
	"fmt"
	"strings"
)

// mostLines is about what an operator reads before the first start.
const mostLines = 40

// text returns a first configuration: what differs from site to site, and where to read
// on. It uses tables, as the documentation does, if that takes at most mostLines lines.
// Otherwise each node and each VIP is one line, which is enough for 26 of them.
func (w wish) text(m machine, key string) string {
	if text := w.tables(m, key); strings.Count(text, "\n") <= mostLines {
		return text
	}
	return w.rows(m, key)
}

// The comments that both forms contain.
const (
	aboutNodes   = "# The nodes: static addresses, for heartbeats and SIP probes."
	aboutWitness = " A witness votes, and never holds a VIP."
	aboutVIPs    = "# The floating addresses. prefer: where one is at home; nodes that no VIP prefers are spares."
	aboutActions = "# Their actions empty caches of the time before the takeover."
)

type printer func(format string, args ...any)

func (w wish) begin() (*strings.Builder, printer) {
	var b strings.Builder
	return &b, func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
}

func (w wish) heading(line printer, key string) {
	line("# sipalive, the same file on every node. Every key: sipalive reference, sipalive.toml(5).")
	line("cluster  = %q", w.cluster)
	line("key_file = %q", key)
	about := aboutNodes
	if len(w.witnesses) > 0 {
		about += aboutWitness
	}
	line("%s", about)
}

func (m machine) aboutVIPs(line printer) {
	line(aboutVIPs)
	if m.memcached != "" {
		line(aboutActions)
	}
}

// home returns the node that a VIP prefers. The VIPs take the nodes in turn.
func (w wish) home(vip int) string {
	if len(w.nodes) == 0 {
		return ""
	}
	return w.nodes[vip%len(w.nodes)].name
}

func (w wish) tables(m machine, key string) string {
	b, line := w.begin()
	w.heading(line, key)
	for _, n := range w.nodes {
		line("[[node]]\nname = %q\naddress = %q", n.name, n.address)
	}
	for _, n := range w.witnesses {
		line("[[node]]\nname = %q\naddress = %q\nholder = false", n.name, n.address)
	}
	m.writeTarget(line, `[[vip.action]] freeswitch = ["profile-recover vip1"]`)
	m.aboutVIPs(line)
	iface := w.interfaceOf(m)
	for i, v := range w.vips {
		line("[[vip]]\nname = %q\naddress = %q", v.name, v.address)
		if iface != "" {
			line("interface = %q", iface)
		}
		if home := w.home(i); home != "" {
			line("prefer = [%q]", home)
		}
		if m.memcached != "" {
			line("[[vip.action]]\non = \"acquire\"\nmemcached = [%q]", m.memcached)
		}
	}
	return b.String()
}

// rows writes the same in TOML's inline tables. Tables in [[ ]] come last: a key behind
// one would become part of it.
func (w wish) rows(m machine, key string) string {
	b, line := w.begin()
	w.heading(line, key)
	line("node = [")
	for _, n := range w.nodes {
		line("  {name = %q, address = %q},", n.name, n.address)
	}
	for _, n := range w.witnesses {
		line("  {name = %q, address = %q, holder = false},", n.name, n.address)
	}
	line("]")
	m.aboutVIPs(line)
	line("vip = [")
	iface := w.interfaceOf(m)
	for i, v := range w.vips {
		row := fmt.Sprintf("name = %q, address = %q", v.name, v.address)
		if iface != "" {
			row += fmt.Sprintf(", interface = %q", iface)
		}
		if home := w.home(i); home != "" {
			row += fmt.Sprintf(", prefer = [%q]", home)
		}
		if m.memcached != "" {
			row += fmt.Sprintf(", action = [{on = \"acquire\", memcached = [%q]}]", m.memcached)
		}
		line("  {%s},", row)
	}
	line("]")
	line("# In [[vip]] and [[vip.action]] tables, as the pages have it, each key above has a line of its own.")
	m.writeTarget(line, `a VIP's action = [{on = "acquire", freeswitch = ["profile-recover vip1"]}]`)
	return b.String()
}

// writeTarget writes where the PBX is asked; udp:5060 is the default.
func (m machine) writeTarget(line printer, recovers string) {
	switch {
	case m.target != "" && m.target != "udp:5060":
		line("[[sip.target]]\nuri = %q  # where %s answers OPTIONS", m.target, m.program)
	case m.target != "":
		line("# %s answers OPTIONS on udp:5060, the default of [[sip.target]].", m.program)
	default:
		line("# The PBX has to answer OPTIONS on udp:5060 of its node, or say where in [[sip.target]].")
	}
	if m.program == "freeswitch" {
		line("# FreeSWITCH: a profile for each VIP, then %s.", recovers)
	}
}
