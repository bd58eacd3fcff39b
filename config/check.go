package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxNodes  = 64
	maxLeases = 256 // VIPs and roles: each heartbeat asks for all that the node holds
)

// check makes the checks that need more than one table.
func (d *decoder) check(c *Config) {
	d.checkLease(c.Timing)
	d.checkPort(c)
	d.checkNames(c)
	d.checkAddresses(c)
	d.checkNodes(c)
	d.checkTargets(c)
	if len(c.Nodes) > maxNodes {
		return
	}
	for i, v := range c.VIPs {
		d.checkPrefer(c, d.vipTables[i], v.Prefer, true)
	}
	for i, r := range c.Roles {
		d.checkPrefer(c, d.roleTables[i], r.Prefer, false)
	}
}

// checkLease: a holder has to get its answers between two heartbeats. Otherwise it would
// give up the lease although nothing is wrong.
func (d *decoder) checkLease(t Timing) {
	at := d.timing
	if t.Lease*999/1000-t.Margin() >= 2*t.Heartbeat || !at.good("lease", "heartbeat") {
		return
	}
	key := "lease"
	if !at.has(key) {
		key = "heartbeat"
	}
	at.fail(key, "lease %q is too short for heartbeat %q: lease*0.999 - max(10ms, lease/20) must be at least two heartbeats; lease = %q would do",
		spell(t.Lease), spell(t.Heartbeat), spell(shortestLease(t.Heartbeat)))
}

// shortestLease returns whole milliseconds. The margin is 10 ms up to a lease of 200 ms
// and a twentieth of the lease above that, so both bounds have to hold.
func shortestLease(heartbeat time.Duration) time.Duration {
	flat := (2*heartbeat+10*time.Millisecond)*1000/999 + 1
	share := 2*heartbeat*1000/949 + 1
	lease := max(flat, share).Truncate(time.Millisecond)
	for lease*999/1000-(Timing{Lease: lease}).Margin() < 2*heartbeat {
		lease += time.Millisecond
	}
	return lease
}

// checkPort: the agent and the PBX listen on the same address.
func (d *decoder) checkPort(c *Config) {
	for i, target := range c.SIP.Targets {
		switch {
		case target.Port != c.Port:
		case d.root.has("port"):
			d.root.fail("port", "port = %d: sip.target %q is there; give the agents another, the default is 7946", c.Port, target.Name)
		default:
			d.targetTables[i].fail("uri", "uri = %q: the agents' own port is there; set port, at the top level, to another", target.uri())
		}
	}
}

func (d *decoder) checkNames(c *Config) {
	nodes := make(names)
	for i, n := range c.Nodes {
		nodes.add(d.nodeTables[i], n.Name, "node")
	}
	checks := make(names)
	for i, k := range c.Checks {
		checks.add(d.checkTables[i], k.Name, "check")
	}
	leases := make(names)
	for i, v := range c.VIPs {
		if v.Name == "node" {
			d.vipTables[i].fail("name", "name = \"node\": that word means the node itself in [[sip.target]]; choose another")
		}
		leases.add(d.vipTables[i], v.Name, "vip")
	}
	for i, r := range c.Roles {
		leases.add(d.roleTables[i], r.Name, "role")
	}
}

// names maps a name to where it was first given.
type names map[string]place

type place struct {
	what string
	line int
}

// add blames the later of two equal names. VIPs and roles share one set, because commands
// take either in the same argument.
func (n names) add(t *table, name, what string) {
	if name == "" {
		return
	}
	here := place{what, t.line("name")}
	first, dup := n[name]
	if !dup {
		n[name] = here
		return
	}
	if here.line < first.line {
		here, first = first, here
	}
	t.d.fail(here.line, "name = %q: the %s on line %d has that name; choose another", name, first.what, first.line)
}

func (d *decoder) checkAddresses(c *Config) {
	type owner struct {
		label string
		line  int
	}
	owned := make(map[netip.Addr]owner)
	add := func(t *table, key, label string, a netip.Addr) {
		if !a.IsValid() {
			return
		}
		if o, dup := owned[a]; dup {
			t.fail(key, "%s = %q: %s on line %d has that address; every node, second path and VIP needs its own", key, a, o.label, o.line)
			return
		}
		owned[a] = owner{label, t.line(key)}
	}
	for i, n := range c.Nodes {
		t := d.nodeTables[i]
		sameFamily(t, "address", c.Nodes[0].Address, n.Address)
		sameFamily(t, "address2", c.Nodes[0].Address2, n.Address2)
		add(t, "address", label("node", n.Name), n.Address)
		add(t, "address2", label("node", n.Name), n.Address2)
	}
	for i, v := range c.VIPs {
		t := d.vipTables[i]
		add(t, "address", label("vip", v.Name), v.Address)
		if v.Address.IsLoopback() {
			t.fail("address", "address = %q: a loopback address reaches no phone; e.g. address = \"192.0.2.101\"", v.Address)
		}
		if v.Gateway.IsValid() && v.Address.IsValid() && v.Gateway.Is4() != v.Address.Is4() {
			t.fail("gateway", "gateway = %q: a router of %s is needed for %s", v.Gateway, ipVersion(v.Address), v.Address)
		}
		if v.Gateway.IsValid() && v.Gateway == v.Address {
			t.fail("gateway", "gateway = %q: that is the VIP itself; give the router's address, or leave gateway out to take the default route's", v.Gateway)
		}
	}
}

// sameFamily: there is no path between an IPv4 node and an IPv6 node.
func sameFamily(t *table, key string, first, a netip.Addr) {
	if first.IsValid() && a.IsValid() && first.Is4() != a.Is4() {
		t.fail(key, "%s = %q: the first node's is %s, %q; all nodes need an %s of one family", key, a, ipVersion(first), first, key)
	}
}

func ipVersion(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func label(what, name string) string { return fmt.Sprintf("%s %q", what, name) }

func (d *decoder) checkNodes(c *Config) {
	voters, holders := 0, 0
	for _, n := range c.Nodes {
		if n.Voter {
			voters++
		}
		if n.Holder {
			holders++
		}
	}
	at := d.root.line("node")
	switch {
	case len(c.Nodes) == 0:
		d.absent(at, "no node; give each machine a [[node]] with name and address")
	case len(c.Nodes) > maxNodes:
		d.fail(d.nodeTables[maxNodes].at.line, "%d nodes are too many; at most %d", len(c.Nodes), maxNodes)
	case voters == 0:
		d.fail(d.nodeTables[0].at.line, "no node is a voter, so nobody can grant a lease; take voter = false from at least one, better three")
	case holders == 0 && len(c.VIPs) > 0:
		d.fail(d.vipTables[0].at.line, "no node may hold a VIP; take holder = false from at least one [[node]]")
	}
	if leases := slices.Concat(d.vipTables, d.roleTables); len(leases) > maxLeases {
		d.fail(leases[maxLeases].at.line, "%d VIPs and roles are too many; at most %d", len(leases), maxLeases)
	}
}

// checkPrefer requires nodes that can hold the lease, each named once.
func (d *decoder) checkPrefer(c *Config, t *table, prefer []string, isVIP bool) {
	seen := make(map[string]bool)
	for i, name := range prefer {
		n := c.Node(name)
		switch {
		case n == nil:
			t.failItem("prefer", i, "prefer: no node is called %q; the nodes are %s", name, listed(c.nodeNames()))
		case isVIP && !n.Holder:
			t.failItem("prefer", i, "prefer: node %q is a witness (holder = false) and never holds a VIP; leave it out", name)
		case seen[name]:
			t.failItem("prefer", i, "prefer: %q is named twice; leave one out", name)
		}
		seen[name] = true
	}
}

// uniqueTargets: two targets with one name cannot be told apart, and two on the same port
// of the same address are the same target. TLS uses a TCP port.
func uniqueTargets(targets []Target, tables []*table) {
	type place struct {
		on, protocol string
		port         uint16
	}
	set := make(names)
	ports := make(map[place]int)
	for i, target := range targets {
		t := tables[i]
		set.add(t, target.Name, "target")
		here := place{target.On, strings.Replace(target.Transport, "tls", "tcp", 1), target.Port}
		if line, dup := ports[here]; dup {
			t.fail("uri", "uri = %q: the target on line %d has that port; leave one out", target.uri(), line)
			continue
		}
		ports[here] = t.line("uri")
	}
}

func (t Target) uri() string { return fmt.Sprintf("%s:%d", t.Transport, t.Port) }

// checkTargets: a target is on the node or on a VIP that exists. At least one has to be
// on the node, or nobody could tell whether a spare is fit.
func (d *decoder) checkTargets(c *Config) {
	var vips []string
	for _, v := range c.VIPs {
		vips = append(vips, v.Name)
	}
	for i, target := range c.SIP.Targets {
		if target.On != OnNode && !slices.Contains(vips, target.On) {
			d.targetTables[i].fail("on", "on = %q: must be \"node\" or the name of a VIP%s", target.On, vipsAre(vips))
		}
	}
	if len(c.SIP.Targets) > 0 && len(c.SIP.OnNode()) == 0 {
		d.targetTables[0].fail("on", "no [[sip.target]] is on the node, so nobody could tell whether a spare is fit; give one on = \"node\"")
	}
}

func vipsAre(names []string) string {
	if len(names) == 0 {
		return "; there is none"
	}
	return ", one of " + listed(names)
}

// verifiable: verify_timeout has to leave time for one answer.
func verifiable(t *table, s SIP, base Target, tables []*table) {
	tooShort := func(at *table, key string, timeout time.Duration) {
		at.fail(key, "timeout %q is longer than verify_timeout %q, which has to leave time for one answer; shorten one or lengthen the other",
			spell(timeout), spell(s.VerifyTimeout))
	}
	if !s.Verify || !t.good("timeout", "verify_timeout") {
		return
	}
	for i, target := range s.Targets {
		if target.Timeout > s.VerifyTimeout && tables[i].has("timeout") {
			tooShort(tables[i], "timeout", target.Timeout)
		}
	}
	if base.Timeout > s.VerifyTimeout {
		key := "timeout"
		if !t.has(key) {
			key = "verify_timeout"
		}
		tooShort(t, key, base.Timeout)
	}
}
