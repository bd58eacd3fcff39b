package agent

import (
	"fmt"
	"net/netip"
	"time"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/elect"
	"sipalive/hooks"
	"sipalive/vip"
)

// names translates between the names in the configuration and the identities that elect
// uses.
type names struct {
	leases []lease                // every VIP and role in configured order
	byID   map[elect.VIPID]*lease // also those that have left the file: their actions may still run
	byName map[string]*lease
}

// lease is one VIP or role as the agent needs it.
type lease struct {
	id      elect.VIPID
	name    string
	vip     *config.VIP // nil for a role
	address netip.Addr  // invalid for a role
	home    string      // the first node in prefer; empty: none
	left    bool        // a reload has removed it from the configuration
	actions []hooks.Action
}

func newNames(c *config.Config, before *names) *names {
	n := &names{byID: map[elect.VIPID]*lease{}, byName: map[string]*lease{}}
	for i := range c.VIPs {
		v := &c.VIPs[i]
		n.leases = append(n.leases, lease{id: vipID(v.Address), name: v.Name, vip: v, address: v.Address, home: first(v.Prefer), actions: hookActions(v.Actions)})
	}
	for _, r := range c.Roles {
		n.leases = append(n.leases, lease{id: elect.RoleID(r.Name), name: r.Name, home: first(r.Prefer), actions: hookActions(r.Actions)})
	}
	for i := range n.leases {
		l := &n.leases[i]
		n.byID[l.id], n.byName[l.name] = l, l
	}
	if before == nil {
		return n
	}
	for id, l := range before.byID {
		if n.byID[id] == nil {
			gone := *l
			gone.left = true
			n.byID[id] = &gone
		}
	}
	return n
}

func first(prefer []string) string {
	if len(prefer) == 0 {
		return ""
	}
	return prefer[0]
}

// awayFrom returns the home of a VIP or role that another node holds; else "".
func (l *lease) awayFrom(holder elect.Node) string {
	if holder == "" || string(holder) == l.home {
		return ""
	}
	return l.home
}

// bindsTo returns a VIP's address and the interface it belongs on.
func (l *lease) bindsTo() vip.Address { return vip.Address{IP: l.address, Interface: l.vip.Interface} }

// vipID returns a VIP's identity: its canonical address (§4.3).
func vipID(a netip.Addr) elect.VIPID { return elect.VIPID(a.Unmap().String()) }

func hookActions(in []config.Action) []hooks.Action {
	out := make([]hooks.Action, 0, len(in))
	for _, c := range in {
		a := hooks.Action{On: hooks.Phase(c.On), Exec: c.Exec, User: c.User, FreeSWITCH: c.FreeSWITCH, Memcached: c.Memcached,
			HTTP: c.HTTP, SecretFile: c.SecretFile, Timeout: c.Timeout, Retries: c.Retries, GiveBack: c.OnFailure == config.OnFailureRelease}
		for _, w := range c.When {
			a.When = append(a.When, hooks.Cause(w))
		}
		out = append(out, a)
	}
	return out
}

// CheckActions returns an error for an action that could never do what it says.
func CheckActions(c *config.Config) error {
	for i, n := range c.Notify {
		if err := (hooks.Action{On: hooks.Notice, Mail: n.Mail, HTTP: n.HTTP, Exec: n.Exec}).Check(); err != nil {
			return fmt.Errorf("%s: notify %d: %w", c.File, i+1, err)
		}
	}
	for i, a := range hookActions(c.Actions) {
		if err := a.Check(); err != nil {
			return fmt.Errorf("%s: cluster-wide action %d: %w", c.File, i+1, err)
		}
	}
	for _, l := range newNames(c, nil).leases {
		for i, a := range l.actions {
			if err := a.Check(); err != nil {
				return fmt.Errorf("%s: action %d of %s: %w", c.File, i+1, l.name, err)
			}
		}
	}
	return nil
}

// ElectConfig returns what the machine needs from the configuration and from the path of
// this node's relayed heartbeats.
func ElectConfig(c *config.Config, self *config.Node, relay arp.RelayLink) elect.Config {
	e := elect.Config{
		Self: elect.Node(self.Name), Digest: c.Digest(),
		Heartbeat: c.Timing.Heartbeat, Lease: c.Timing.Lease, HoldDown: c.Timing.HoldDown, Settle: c.Timing.Settle,
		Stagger: c.Timing.Stagger, Exclude: c.Timing.Exclude, FailbackAfter: c.Timing.FailbackAfter,
		FailbackAuto: c.Failback == config.FailbackAuto, PrepareTimeout: prepareTimeout(c), CheckTimeout: checkTimeout(c),
		Survivor: survivorModes[c.Survivor], SurvivorAfter: c.Timing.SurvivorAfter,
		FlushTimeout: flushTimeout(hookActions(c.Actions)), ReleaseTimeout: roleReleaseTimeout(c),
	}
	for _, n := range c.Nodes {
		e.Nodes = append(e.Nodes, elect.NodeConfig{Name: elect.Node(n.Name), Voter: n.Voter, Holder: n.Holder, Capacity: n.Capacity})
	}
	for _, v := range c.VIPs {
		e.VIPs = append(e.VIPs, elect.VIPConfig{ID: vipID(v.Address), Name: v.Name, Prefer: nodes(v.Prefer), Weight: v.Weight,
			Announced: v.Announce, Relayed: relays(relay, v)})
	}
	for _, r := range c.Roles {
		e.VIPs = append(e.VIPs, elect.VIPConfig{ID: elect.RoleID(r.Name), Name: r.Name, Role: true, Prefer: nodes(r.Prefer), PreferSpare: r.PreferSpare})
	}
	return e
}

var survivorModes = map[config.Survivor]elect.SurvivorMode{config.SurvivorAuto: elect.SurvivorAuto, config.SurvivorAlways: elect.SurvivorAlways,
	config.SurvivorNever: elect.SurvivorNever}

func nodes(in []string) (out []elect.Node) {
	for _, n := range in {
		out = append(out, elect.Node(n))
	}
	return out
}

// prepareTimeout returns the longest that getting ready can take: the slowest chain of
// prepare actions, then one OPTIONS to each of the node's own targets in turn.
func prepareTimeout(c *config.Config) time.Duration {
	d := longestChain(c, hooks.Prepare)
	for _, t := range c.SIP.OnNode() {
		d += t.Timeout
	}
	return d
}

// checkTimeout returns the longest that a node's checks of itself can take.
func checkTimeout(c *config.Config) (longest time.Duration) {
	for _, k := range c.Checks {
		longest = max(longest, k.Timeout)
	}
	if c.FreeSWITCH.ReadyCheck {
		longest = max(longest, ReadyEvery)
	}
	return longest
}

// releaseTimeout returns the longest that the actions of a node that hands over can take.
func releaseTimeout(c *config.Config) time.Duration {
	return longestChain(c, hooks.Release) + longestChain(c, hooks.Retire)
}

// roleReleaseTimeout returns the longest that a role's release actions can delay its
// handover.
func roleReleaseTimeout(c *config.Config) (longest time.Duration) {
	for _, r := range c.Roles {
		longest = max(longest, hooks.Longest(hookActions(r.Actions), hooks.Release))
	}
	return longest
}

// longestChain returns the longest that any VIP's or role's actions of a phase may take,
// by their timeouts.
func longestChain(c *config.Config, phase hooks.Phase) (longest time.Duration) {
	for _, v := range c.VIPs {
		longest = max(longest, hooks.Longest(hookActions(v.Actions), phase))
	}
	for _, r := range c.Roles {
		longest = max(longest, hooks.Longest(hookActions(r.Actions), phase))
	}
	return longest
}

// isOurs reports whether an address is, or was, a configured VIP.
func (n *names) isOurs(ip netip.Addr) bool { return ip.IsValid() && n.byID[vipID(ip)] != nil }
