package keepalived

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// maxShown is how many characters of the file a comment quotes at most.
const maxShown = 100

// text returns the file, beginning with what has no equivalent.
func (c *cluster) text(o Options, notes []note) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Made from %s by `sipalive import`: read it, then `sipalive check -c FILE`.", shown(o.File))
	line("# A node's PBX has to answer OPTIONS on the node's address, udp:5060: [[sip.target]].")
	if len(c.nodes) == 1 {
		line("# ONE NODE ONLY: keepalived finds its peers by multicast. Add a [[node]] for each.")
	}
	if len(c.nodes) == 2 {
		line("# Two nodes have no majority once one is gone: give a third machine the vote, as a")
		line("# [[node]] with holder = false.")
	}
	if len(notes) > 0 {
		line("#\n# Without an equivalent, or with another one:")
		for _, n := range notes {
			line("# - %s%s: %s", n.where(), shown(n.what), n.why)
		}
	}
	line("")
	line("cluster  = %s", quoted(or(o.Cluster, "pbx")))
	line("key_file = %s", quoted(or(o.KeyFile, "/etc/sipalive/key")))
	c.settings(line)
	for _, n := range c.nodes {
		line("\n[[node]]\nname    = %s\naddress = %s", quoted(n.Name), quoted(n.Address.String()))
	}
	for _, v := range c.vips {
		v.text(line)
	}
	c.programs(line)
	return b.String()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (c *cluster) settings(line func(string, ...any)) {
	if c.failback {
		line(`failback = "auto"                # keepalived preempts`)
	}
	if c.lease == 0 && c.after == 0 && c.refresh == 0 {
		return
	}
	if c.lease > 0 || c.failback && c.after > 0 {
		line("\n[timing]")
	}
	if c.lease > 0 {
		line("heartbeat = %s\nlease     = %s             # three adverts", quoted(spell(max(minBeat, c.lease/perLease))), quoted(spell(c.lease)))
	}
	if c.failback && c.after > 0 {
		line("failback_after = %s          # preempt_delay", quoted(spell(c.after)))
	}
	if c.refresh > 0 {
		line("\n[announce]\nrefresh = %s                 # garp_master_refresh", quoted(spell(c.refresh)))
	}
}

func (v *vip) text(line func(string, ...any)) {
	line("\n[[vip]]\nname      = %s\naddress   = %s", quoted(v.name), quoted(v.address.String()))
	if v.iface != "" {
		line("interface = %s", quoted(v.iface))
	}
	if v.prefer != "" {
		line("prefer    = [%s]", quoted(v.prefer))
	}
	for _, a := range v.actions {
		line("[[vip.action]]\non   = %s\nexec = %s", quoted(a.on), list(a.exec))
		if a.user != "" {
			line("user = %s", quoted(a.user))
		}
	}
}

func (c *cluster) programs(line func(string, ...any)) {
	for _, k := range c.checks {
		line("\n[[check]]\nname     = %s\nexec     = %s\ninterval = %s\ntimeout  = %s\nfall     = %d", quoted(k.name), list(k.exec),
			quoted(spell(k.interval)), quoted(spell(k.timeout)), k.fall)
	}
	if len(c.mail) == 0 {
		return
	}
	line("\n[[notify]]\nevents = [\"takeover\", \"vacant\", \"all_unfit\"]\nmail   = %s", list(c.mail))
	if c.from == "" && c.server == "" {
		return
	}
	line("\n[mail]")
	if c.server != "" {
		line("server = %s", quoted(c.server))
	}
	if c.from != "" {
		line("from   = %s", quoted(c.from))
	}
}

func list(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quoted(w)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// where returns text such as "lines 3, 17 and 2 more, ". Line 0 has no place: "".
func (n note) where() string {
	const most = 4
	if n.lines[0] == 0 {
		return ""
	}
	var words []string
	for _, l := range n.lines[:min(len(n.lines), most)] {
		words = append(words, fmt.Sprint(l))
	}
	text := strings.Join(words, ", ")
	if more := len(n.lines) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(n.lines) == 1 {
		return "line " + text + ", "
	}
	return "lines " + text + ", "
}

// shown makes the file's text fit for a comment: one line, not too long.
func shown(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if r := []rune(text); len(r) > maxShown {
		text = string(r[:maxShown]) + "..."
	}
	return text
}

// spell writes a duration without parts that are zero: 1m, not 1m0s.
func spell(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
