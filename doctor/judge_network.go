package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sipalive/config"
	"sipalive/control"
)

// ports checks the agents' port to and from each other node.
func ports(f *Facts) (out []Finding) {
	for _, p := range f.Ports {
		out = append(out, f.port(p))
	}
	return out
}

func (f *Facts) port(p Port) Finding {
	who := fmt.Sprintf("%s: port %d of %s", p.Node, f.Config.Port, p.Address)
	open := fmt.Sprintf("let UDP and TCP port %d pass between the nodes, on %s, here and on the way%s", f.Config.Port, p.Node, f.suspect(p))
	if p.Second {
		return second(p, who, open)
	}
	start := "start the agent there: systemctl start sipalive; see its log"
	if f.running() && f.heard(p.Node) {
		if p.TCP != nil {
			return warn(fmt.Sprintf("%s: its heartbeats are heard, but over TCP: %v", who, p.TCP), open+"; gossip uses TCP")
		}
		return f.both(p, who, open)
	}
	switch {
	case !p.Asked && p.TCP == nil && !f.running() && p.AskErr == nil:
		return warn(who+": TCP is open; over UDP it was not asked, for want of a key", "see key")
	case !p.Asked && p.TCP == nil && !f.running():
		return warn(fmt.Sprintf("%s: TCP is open; over UDP it was not asked: %v", who, p.AskErr),
			fmt.Sprintf("see what has the port: ss -ulnp sport = :%d; an agent that is ending is gone in a moment: ask again", f.Config.Port))
	case !p.Asked && p.TCP == nil:
		return bad(who+": TCP is open, and no heartbeat is heard", "compare key files (sha256sum) and cluster names; else "+open)
	case p.Asked && p.Foreign && !p.Heard:
		return bad(who+": what comes from it is sealed with another key, or for another cluster", "copy key file and configuration to every node")
	case p.Asked && p.Heard && p.Answers && p.TCP == nil:
		return fine(who + ": reached over UDP and TCP, and it reaches this node")
	case p.Asked && p.Heard && p.Answers:
		return warn(fmt.Sprintf("%s: reached over UDP and back, but over TCP: %v", who, p.TCP), open+"; gossip uses TCP")
	case p.Asked && p.Answers:
		return bad(who+": it answers over UDP, but sends nothing by itself that arrives here", "this node has to be in its file under its address, and "+open)
	case p.Asked && p.Heard:
		return bad(who+": its packets arrive, but it does not answer over UDP", open)
	case p.TCP != nil:
		return bad(fmt.Sprintf("%s: no connection: %v", who, p.TCP), start+"; else "+open)
	}
	return bad(who+": TCP is open, but nothing is heard over UDP", "compare key files (sha256sum); else "+open)
}

// second judges the path between the nodes' second addresses. Heartbeats use both paths
// and do not say which one they took, so only TCP tells.
func second(p Port, who, open string) Finding {
	if p.TCP != nil {
		return warn(fmt.Sprintf("%s, the second path: no connection: %v", who, p.TCP), open+"; start the agent there, if none runs")
	}
	return fine(who + ", the second path: TCP is open; over UDP it is not asked")
}

// answerWithin allows for two rounds of gossip pings, each in another order, and for a
// rejoin.
func (f *Facts) answerWithin() time.Duration {
	return 15*time.Second + 2*time.Duration(len(f.Config.Nodes))*f.Gossip
}

// both judges a node whose heartbeats are heard. They show that the path to this node is
// open; an answer shows that the path back is open too.
func (f *Facts) both(p Port, who, open string) Finding {
	n, _ := f.nodeStatus(p.Node)
	switch ago := time.Duration(n.Answered); {
	case n.ByRelay:
		return warn(who+": heard through the gateway alone", open)
	case ago == 0:
		return warn(who+": its heartbeats are heard, but it has answered nothing over UDP since the agent here started", "ask again in a minute or two; if it stays so, "+open)
	case ago > f.answerWithin():
		return bad(fmt.Sprintf("%s: its heartbeats are heard, but it has answered nothing over UDP for %s", who, ago.Round(time.Second)), open)
	}
	return fine(fmt.Sprintf("%s: its heartbeats are heard, it answered over UDP %s ago, and TCP is open", who, time.Duration(n.Answered).Round(100*time.Millisecond)))
}

// suspect names the firewall rule here that drops packets to or from the node.
func (f *Facts) suspect(p Port) string {
	if f.Firewall == nil || f.Firewall.Rules == nil || f.Self == nil {
		return ""
	}
	for _, way := range f.ways(p) {
		if fate := f.Firewall.Rules.Fate(way.packet); fate.Dropped {
			return fmt.Sprintf("; %s %s %s (%s)", fate.By, fate.does(), way.what, fate.List)
		}
	}
	return ""
}

func (f Fate) does() string {
	return map[bool]string{true: "drops", false: "may drop"}[f.Sure]
}

type way struct {
	what   string
	packet Packet
}

// ways lists the first packets of the flows to and from another node.
func (f *Facts) ways(p Port) (all []way) {
	own := f.Self.Address
	if p.Second {
		own = f.Self.Address2
	}
	here := netip.AddrPortFrom(own, f.Config.Port)
	there := netip.AddrPortFrom(p.Address, f.Config.Port)
	on := f.Bound[own]
	for _, protocol := range []string{"udp", "tcp"} {
		from, to := there, here
		if protocol == "tcp" {
			from = netip.AddrPortFrom(p.Address, anyPort)
		}
		all = append(all, way{fmt.Sprintf("%s from %s", strings.ToUpper(protocol), p.Node),
			Packet{On: on, From: from, To: to, Protocol: protocol}})
		from, to = here, there
		if protocol == "tcp" {
			from = netip.AddrPortFrom(own, anyPort)
		}
		all = append(all, way{fmt.Sprintf("%s to %s", strings.ToUpper(protocol), p.Node),
			Packet{Leaving: true, On: on, From: from, To: to, Protocol: protocol}})
	}
	return all
}

// anyPort is a port that the kernel may choose for a connection.
const anyPort = 40000

func firewall(f *Facts) []Finding {
	w := f.Firewall
	switch {
	case w == nil || f.Self == nil || f.Config == nil:
		return nil
	case w.Err != nil:
		return []Finding{warn(fmt.Sprintf("the rules of nftables were not read: %v", w.Err), "install nftables' nft and run sipalive doctor as root; or see to port "+fmt.Sprint(f.Config.Port)+" by hand")}
	}
	var out []Finding
	if len(w.Legacy) > 0 {
		out = append(out, warn("rules of the old iptables are loaded too (tables "+strings.Join(w.Legacy, ", ")+"), which are not looked at", "see iptables-legacy-save; better move them to nftables"))
	}
	unsure := false
	dropped := map[string]int{} // index into out: one rule for all nodes is one line, at its worst level
	for _, p := range f.Ports {
		for _, way := range f.ways(p) {
			fate := w.Rules.Fate(way.packet)
			switch {
			case !fate.Dropped && fate.Sure:
			case !fate.Dropped || !fate.Sure && f.passes(p):
				unsure = true
			default:
				found := f.drops(p, way, fate)
				at, said := dropped[fate.By]
				if !said {
					dropped[fate.By] = len(out)
					out = append(out, found)
				} else if found.Level == Error {
					out[at].Level = Error
				}
			}
		}
	}
	switch {
	case unsure && len(dropped) == 0:
		out = append(out, fine("nftables has no rule that surely drops port "+fmt.Sprint(f.Config.Port)+"; not all that it has are understood here"))
	case len(dropped) == 0:
		out = append(out, fine(fmt.Sprintf("nftables lets port %d pass to and from every node", f.Config.Port)))
	}
	return out
}

// passes reports whether packets were seen to arrive that a rule might drop.
func (f *Facts) passes(p Port) bool {
	return p.TCP == nil && (f.heard(p.Node) || p.Heard && p.Answers)
}

func (f *Facts) drops(p Port, w way, fate Fate) Finding {
	text := fmt.Sprintf("%s %s %s port %d", fate.By, fate.does(), w.what, f.Config.Port)
	do := fmt.Sprintf("%s shows it; put before it: %s", fate.List, f.accepting(w.packet))
	if !fate.Sure || f.running() && f.heard(p.Node) {
		// Answers to packets of this node may still pass.
		return warn(text+", if nothing accepts it before", do)
	}
	return bad(text, do)
}

func (f *Facts) accepting(p Packet) string {
	family, side, a := "ip", "saddr", p.From.Addr()
	if p.Leaving {
		side, a = "daddr", p.To.Addr()
	}
	if a.Is6() {
		family = "ip6"
	}
	var nodes []string
	for _, n := range f.Config.Nodes {
		for _, other := range []netip.Addr{n.Address, n.Address2} {
			if n.Name != f.Self.Name && other.IsValid() && other.Is6() == a.Is6() {
				nodes = append(nodes, other.String())
			}
		}
	}
	return fmt.Sprintf("%s %s { %s } meta l4proto { tcp, udp } th dport %d accept", family, side, strings.Join(nodes, ", "), f.Config.Port)
}

func (f *Facts) heard(node string) bool {
	n, known := f.nodeStatus(node)
	return known && n.Alive
}

func (f *Facts) nodeStatus(name string) (control.NodeStatus, bool) {
	if f.running() {
		for _, n := range f.Agent.Status.Nodes {
			if n.Name == name {
				return n, true
			}
		}
	}
	return control.NodeStatus{}, false
}

// relay checks the way through the gateway. Without it three or more voters cannot tell a
// split from a death.
func relay(f *Facts) (out []Finding) {
	if !f.running() || f.Config == nil || f.Config.Survivor == config.SurvivorNever {
		return nil
	}
	for _, n := range f.Agent.Status.Nodes {
		switch {
		case n.Name == f.Agent.Status.Node || !n.Alive || n.Relay == "":
		case n.Relay == "known":
			out = append(out, fine(n.Name+": the gateway relays between it and this node"))
		default:
			out = append(out, warn(n.Name+": the gateway is not known to relay between it and this node, so the last node standing may not take over",
				"let the gateway forward within its subnet (Linux: ip_forward = 1), or add a witness elsewhere, so that a majority stays"))
		}
		if n.ByRelay {
			out = append(out, bad(n.Name+": heard through the gateway alone: the direct way is cut", "look at switch and cabling between the two"))
		}
	}
	return out
}

func router(f *Facts) (out []Finding) {
	for _, v := range f.bindable() {
		if !v.Announce {
			continue
		}
		if gateway, looked := f.Gateways[v.Name]; looked && !gateway.IsValid() {
			out = append(out, warn(v.Name+": no default route on its interface, so no router is asked for proof", "give gateway in [[vip]], a router on that link"))
			continue
		}
		for _, s := range f.vips() {
			if s.Name == v.Name {
				out = append(out, proof(s))
			}
		}
	}
	return out
}

func (f *Facts) vips() []control.VIPStatus {
	if !f.running() {
		return nil
	}
	return f.Agent.Status.VIPs
}

func proof(s control.VIPStatus) Finding {
	if s.Holder == "" {
		return warn(s.Name+": nobody holds it, so no router was asked", "`sipalive status` says why nobody does")
	}
	switch s.Router {
	case "proven":
		return fine(fmt.Sprintf("%s: the router reaches it at %s", s.Name, s.Holder))
	case "unproven":
		return bad(fmt.Sprintf("%s: the router was not shown to reach it at %s", s.Name, s.Holder),
			"look at the router's ARP table and at what keeps it from learning (dynamic ARP inspection, port security, a provider's filter); docs/alarms.md, unreachable")
	}
	return warn(fmt.Sprintf("%s: the router has answered no ping of %s, so nobody knows whether it reaches it there", s.Name, s.Holder),
		"right after a takeover ask again; else let the router answer pings from the nodes, or name one that does: gateway in [[vip]]")
}
