package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sipalive/config"
)

// asItSays is the advice for errors whose text already ends with what to do.
const asItSays = "as it says; then `sipalive check -c FILE`"

func file(f *Facts) []Finding {
	if f.FileErr != nil {
		return []Finding{bad(f.FileErr.Error(), asItSays)}
	}
	if f.Config == nil {
		return nil
	}
	out := []Finding{fine(fmt.Sprintf("%s: cluster %s, nodes: %d, VIPs: %d, roles: %d", f.File, f.Config.Cluster, len(f.Config.Nodes), len(f.Config.VIPs), len(f.Config.Roles)))}
	voters := 0
	for _, n := range f.Config.Nodes {
		if n.Voter {
			voters++
		}
	}
	if voters == 2 {
		out = append(out, warn("two voters: where they lose each other there is no majority", "add a third node, a witness will do: holder = false"))
	}
	if f.running() {
		if st := f.Agent.Status; st.Cluster != f.Config.Cluster || f.Self != nil && st.Node != f.Self.Name {
			out = append(out, bad(fmt.Sprintf("the agent that answers here is %s of cluster %s: it runs another file", st.Node, st.Cluster),
				"give -c the file that it runs, and --run-dir if there are several; `systemctl cat sipalive` shows both"))
		}
		for _, n := range f.Agent.Status.Nodes {
			if n.ConfigDiffers {
				out = append(out, warn(fmt.Sprintf("%s runs another configuration than this node", n.Name), "copy the file to every node and `sipalive reload` on each"))
			}
		}
	}
	return out
}

func key(f *Facts) []Finding {
	switch {
	case f.KeyErr != nil:
		return []Finding{bad(f.KeyErr.Error(), "as it says; the key file is the same on every node")}
	case f.Config == nil:
		return nil
	case f.Keys > 1:
		return []Finding{warn(fmt.Sprintf("%s holds %d keys: the first one seals, all open", f.Config.KeyFile, f.Keys), "`sipalive key rotate`, on any node, finishes it; changed by hand, see to the same file on every node first")}
	}
	return []Finding{fine(f.Config.KeyFile + ": one key, closed to others")}
}

func node(f *Facts) []Finding {
	switch {
	case f.SelfErr != nil:
		return []Finding{bad(f.SelfErr.Error(), "as it says; what concerns this node was not looked at")}
	case f.Self == nil:
		return nil
	}
	for _, a := range []netip.Addr{f.Self.Address, f.Self.Address2} {
		if _, here := f.Bound[a]; a.IsValid() && !here {
			return []Finding{bad(fmt.Sprintf("%s: its address %s is not on this machine", f.Self.Name, a), "give the machine that static address, or correct the file on every node")}
		}
	}
	what := "a holder"
	switch {
	case !f.Self.Holder:
		what = "a witness"
	case !f.Self.Voter:
		what = "a holder without a vote"
	}
	return []Finding{fine(fmt.Sprintf("this is %s, %s, %s", f.Self.Name, f.Self.Address, what))}
}

// interfaces checks the interfaces to which this node would bind a VIP.
func interfaces(f *Facts) (out []Finding) {
	if f.Links == nil {
		return nil
	}
	for _, v := range f.bindable() {
		name := f.InterfaceOf(v)
		switch l := f.Links[name]; {
		case name == "" || !l.Exists:
			out = append(out, bad(fmt.Sprintf("%s: interface %q is not on this machine", v.Name, name), "see `ip link`; correct interface in [[vip]], or leave it out to use that of the node's address"))
		case !l.Running:
			out = append(out, bad(fmt.Sprintf("%s: interface %s is down or has no carrier", v.Name, name), "ip link set "+name+" up; look at the cable and the switch port"))
		default:
			out = append(out, fine(fmt.Sprintf("%s: interface %s is up", v.Name, name)))
		}
	}
	return append(out, crowded(f)...)
}

// A node sends framesEach frames at once for each IPv4 VIP that it takes (design §5.3). A
// switch that inspects ARP accepts mostARP in a second (Cisco's default). goodLimit stays
// below that and leaves room for the kernel's own. The frames under a limit leave
// together; the next ones leave limitPause later, which is pacedWindow of package arp.
const (
	framesEach   = 2
	mostARP      = 15
	goodLimit    = 10
	limitPause   = 1100 * time.Millisecond
	longestPause = 2 * time.Second // longer waits give a warning
)

// crowded warns about too many announcements at once: the last node standing takes every
// VIP at once.
func crowded(f *Facts) (out []Finding) {
	arp, all := map[string]int{}, map[string]int{}
	for _, v := range f.bindable() {
		if v.Announce {
			all[f.InterfaceOf(v)]++
			if v.Address.Is4() {
				arp[f.InterfaceOf(v)]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := arp[name] * framesEach
		if limit := f.Config.Announce.Limit; limit > 0 {
			n = min(n, limit)
			out = append(out, waiting(name, all[name], limit)...)
		}
		if n > mostARP {
			out = append(out, warn(fmt.Sprintf("%s: a node that takes its %d VIPs at once sends %d ARP packets in that moment; a switch that inspects ARP shuts a port at %d in a second (Cisco's default)",
				name, arp[name], n, mostARP+1), fmt.Sprintf("where yours does: `ip arp inspection limit rate %d`, or `ip arp inspection trust`, on every node's port; or limit = %d in [announce], under which the last VIP waits for %v; else nothing",
				n+mostARP, goodLimit, lastAfter(all[name], goodLimit))))
		}
	}
	return out
}

// lastAfter returns how long the last of n VIPs taken at once waits under a limit.
func lastAfter(n, limit int) time.Duration { return time.Duration((n-1)/limit) * limitPause }

// waiting reports what a limit costs.
func waiting(name string, n, limit int) []Finding {
	after := lastAfter(n, limit)
	if after == 0 {
		return nil
	}
	text := fmt.Sprintf("%s: %d frames leave in a second ([announce] limit), so the last of its %d VIPs taken at once is announced after %s", name, limit, n, after)
	if after < longestPause {
		return []Finding{fine(text)}
	}
	return []Finding{warn(text, "nobody reaches that VIP for so long; better `ip arp inspection trust`, or a higher rate, on every node's port and a higher limit or none here; else nothing")}
}

// addresses checks each VIP's address. A VIP outside every subnet of its interface is
// only reachable through a route.
func addresses(f *Facts) (out []Finding) {
	for _, v := range f.bindable() {
		name := f.InterfaceOf(v)
		if l, known := f.Links[name]; known && l.Exists {
			out = append(out, f.address(v, name, l))
		}
	}
	return out
}

func (f *Facts) address(v config.VIP, name string, l Link) Finding {
	holder, said := f.holderOf(v)
	on, here := f.Bound[v.Address]
	switch {
	case !here && said && holder == f.Self.Name:
		return bad(fmt.Sprintf("%s: %s is held by this node, and is not on this machine", v.Name, v.Address),
			"ask again, since it may just have moved; else `sipalive events` says why it was not bound")
	case here && said && holder != f.Self.Name:
		return bad(fmt.Sprintf("%s: %s is on %s here, and %s holds it", v.Name, v.Address, on, cmp.Or(holder, "nobody")),
			"find who put it there (see keepers) and take it away: ip address del "+v.Address.String()+" dev "+on)
	case here && !said:
		return bad(fmt.Sprintf("%s: %s is on %s, and no agent runs here that could end it", v.Name, v.Address, on),
			"take it out of the machine's own network configuration; an agent that starts removes it")
	case slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(v.Address) }):
		return fine(fmt.Sprintf("%s: %s is in a subnet of %s", v.Name, v.Address, name))
	case !v.Announce:
		return fine(fmt.Sprintf("%s: %s is moved by actions (announce = false)", v.Name, v.Address))
	}
	return warn(fmt.Sprintf("%s: %s is in no subnet of %s (%s)", v.Name, v.Address, name, prefixes(l.Prefixes)),
		"the router needs a route to it that follows the holder; or correct the address")
}

func prefixes(all []netip.Prefix) string {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	if len(texts) == 0 {
		return "which has none"
	}
	return strings.Join(texts, ", ")
}

// bindable returns the VIPs that this node may hold.
func (f *Facts) bindable() []config.VIP {
	if f.Config == nil || f.Self == nil || !f.Self.Holder {
		return nil
	}
	return f.Config.VIPs
}

// InterfaceOf returns the interface a VIP is bound to: its own, or that of the node's
// address.
func (f *Facts) InterfaceOf(v config.VIP) string {
	if v.Interface != "" {
		return v.Interface
	}
	return f.Bound[f.Self.Address]
}

func (f *Facts) running() bool { return f.Agent != nil && f.Agent.Err == nil }

// holderOf returns a VIP's holder according to the agent here. said is false if the agent
// does not know the VIP or none answers.
func (f *Facts) holderOf(v config.VIP) (holder string, said bool) {
	if !f.running() {
		return "", false
	}
	for _, s := range f.Agent.Status.VIPs {
		if s.Name == v.Name {
			return s.Holder, true
		}
	}
	return "", false
}
