package main

import (
	"fmt"
	"strings"
)

// text is a first configuration: what differs from site to site, and where to
// read on. With three nodes and two VIPs it has no more than 40 lines.
func (w wish) text(m machine, key string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# sipalive, the same file on every node. Every key: sipalive reference, sipalive.toml(5).")
	line("cluster  = %q", w.cluster)
	line("key_file = %q", key)
	line("# The nodes: static addresses, for heartbeats and SIP probes.")
	for _, n := range w.nodes {
		line("[[node]]\nname = %q\naddress = %q", n.name, n.address)
	}
	for _, n := range w.witnesses {
		line("[[node]]\nname = %q\naddress = %q\nholder = false  # votes, and never holds a VIP", n.name, n.address)
	}
	w.target(line, m)
	line("# The floating addresses. prefer: where one is at home; nodes that no VIP prefers are spares.")
	iface := w.interfaceOf(m)
	for i, v := range w.vips {
		line("[[vip]]\nname = %q\naddress = %q", v.name, v.address)
		if iface != "" {
			line("interface = %q", iface)
		}
		if len(w.nodes) > 0 {
			line("prefer = [%q]", w.nodes[i%len(w.nodes)].name)
		}
		if m.memcached != "" {
			line("[[vip.action]]  # caches of the time before the takeover\non = \"acquire\"\nmemcached = [%q]", m.memcached)
		}
	}
	return b.String()
}

// target is where the PBX is asked; udp:5060 is the default.
func (w wish) target(line func(string, ...any), m machine) {
	switch {
	case m.target != "" && m.target != "udp:5060":
		line("[[sip.target]]\nuri = %q  # where %s answers OPTIONS", m.target, m.program)
	case m.target != "":
		line("# %s answers OPTIONS on udp:5060, the default of [[sip.target]].", m.program)
	default:
		line("# The PBX has to answer OPTIONS on udp:5060 of its node, or say where in [[sip.target]].")
	}
	if m.program == "freeswitch" {
		line("# FreeSWITCH: a profile for each VIP, then [[vip.action]] freeswitch = [\"profile-recover vip1\"].")
	}
}
