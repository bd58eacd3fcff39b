package agent

import (
	"time"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/elect"
	"sipalive/hooks"
)

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
