package agent

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/member"
)

// Hearing is the set of callbacks by which the network watch tells the agent what it
// hears.
type Hearing struct {
	OnRouter   func(arp.Proof)
	OnRival    func(arp.Rival)
	OnGateway  func(netip.Addr, arp.GatewayState)
	OnEvidence func(arp.Evidence)
	OnSign     func(arp.Sign)
}

// onRouter takes from the network watch whether the router reaches a VIP. Status and
// events show it; nothing moves for it. If the router does not reach a VIP, there may be
// other means to reach it: the unreachable actions are for that.
func (a *Agent) onRouter(p arp.Proof) {
	id := vipID(p.VIP)
	if p.Changed {
		a.report(elect.Router{VIP: id, State: routerState(p.State)})
	}
	switch {
	case p.Unreachable:
		text := fmt.Sprintf("%s: not reached by the router for %v: %s", a.nameOf(id), arp.Patience, p.Why)
		a.recorder.network(id, control.KindUnreachable, text, &p.Why)
		a.actions.unreachable(id, text)
	case p.First:
		a.recorder.routerProven(id, p)
	case p.Changed && p.State == arp.RouterProven:
		a.recorder.network(id, control.KindRouter, fmt.Sprintf("%s: router %s reaches it here again", a.nameOf(id), p.Gateway), nil)
	case p.Changed && p.State == arp.RouterUnproven && p.Lost:
		a.recorder.network(id, control.KindRouter, fmt.Sprintf("%s: router %s does not reach it here any more", a.nameOf(id), p.Gateway), &p.Why)
	}
}

// onGateway returns the callback for the state of the router on each VIP's link. A holder
// whose router is silent, and answers other nodes, gives the VIP to one of those.
func (a *Agent) onGateway() func(netip.Addr, arp.GatewayState) {
	silent := map[netip.Addr]bool{}
	return func(vip netip.Addr, state arp.GatewayState) {
		id := vipID(vip)
		a.report(elect.Gateway{VIP: id, State: gatewayState(state)})
		switch {
		case state == arp.GatewaySilent && !silent[vip]:
			silent[vip] = true
			why := fmt.Sprintf("the router of its link has answered %s nothing for %v", a.Self.Name, arp.SilentAfter)
			a.recorder.network(id, control.KindRouter, fmt.Sprintf("%s: %s", a.nameOf(id), why), &why)
		case state == arp.GatewayAnswers && silent[vip]:
			delete(silent, vip)
			a.recorder.network(id, control.KindRouter, fmt.Sprintf("%s: the router of its link answers %s again", a.nameOf(id), a.Self.Name), nil)
		}
	}
}

func gatewayState(s arp.GatewayState) elect.GatewayState {
	return map[arp.GatewayState]elect.GatewayState{arp.GatewayAnswers: elect.GatewayAnswers, arp.GatewaySilent: elect.GatewaySilent}[s]
}

// nameOf returns the configured name of a VIP, also of one that has left the
// configuration.
func (a *Agent) nameOf(id elect.VIPID) string {
	if l := a.names().byID[id]; l != nil {
		return l.name
	}
	return string(id)
}

func routerState(s arp.RouterState) elect.RouterState {
	return map[arp.RouterState]elect.RouterState{arp.RouterUnproven: elect.RouterUnproven, arp.RouterProven: elect.RouterProven}[s]
}

// onRival takes from the network watch that another machine claims a VIP held here.
func (a *Agent) onRival(r arp.Rival) {
	id := vipID(r.VIP)
	who := r.MAC.String()
	if r.Node != "" {
		who += " (" + r.Node + ")"
	}
	name := a.nameOf(id)
	if r.Over {
		a.recorder.network(id, control.KindRival, fmt.Sprintf("%s: rival %s is silent again, after %d claims", name, who, r.Claims), nil)
		return
	}
	why := fmt.Sprintf("%s claims %s", who, r.VIP)
	text := fmt.Sprintf("%s: %s; it stays here", name, why)
	a.recorder.network(id, control.KindRival, text, &why)
	// Without an epoch: each epoch is told once, and a tenure of months may meet several
	// rivals.
	a.recorder.notice(config.NoticeRival, a.names().byID[id], 0, text)
}

// routerProven adds to a takeover's event that the router reaches the VIP here.
func (r *recorder) routerProven(id elect.VIPID, p arp.Proof) {
	r.post(func() {
		if en := r.open[id]; en != nil {
			at := elect.Instant(p.At)
			r.fill(en, func(ev *control.Event) { ev.Add("router proven", at.Sub(en.zero)) })
		}
	})
}

// network records what the network does. If why is given it is trouble, and a warning in
// the log.
func (r *recorder) network(id elect.VIPID, kind, text string, why *string) {
	r.post(func() {
		name := r.a.nameOf(id)
		ev := control.Event{Time: control.Stamp{Time: time.Now()}, Node: r.a.Self.Name, Kind: kind, VIP: name, Text: text}
		r.a.Journal.Add(ev)
		if why != nil {
			r.a.Log.Warn(kind, "node", r.a.Self.Name, "vip", name, "err", *why)
			return
		}
		r.a.Log.Info(kind, "node", r.a.Self.Name, "vip", name, "reason", text)
	})
}

func (a *Agent) addWatchCounters(c map[string]uint64) {
	w, n := a.watch.Stats(), a.Announcer.Stats()
	for name, v := range map[string]uint64{
		"arp_announced": n.Sent, "arp_announce_errors": n.Errors, "arp_pings": w.Pings, "arp_pings_answered": w.Answers,
		"arp_pings_detoured": w.Detours, "arp_gateway_asked": w.Asked, "arp_rival_claims": w.Claims, "arp_defences": w.Defences,
		"arp_owner_asked": w.Owners, "gateway_relayed": w.Relayed, "gateway_relay_errors": w.RelayErrors,
	} {
		c[name] = v
	}
}

// LeaseEnds knows when the lease of each VIP held here ends. Whatever speaks in a VIP's
// name by timers of its own asks it right before it speaks, because an agent that was
// stopped for a while wakes up with overdue timers.
type LeaseEnds struct {
	now  func() elect.Instant
	mu   sync.RWMutex
	ends map[netip.Addr]elect.Instant
}

// NewLeaseEnds returns a LeaseEnds with no VIP held.
func NewLeaseEnds(now func() elect.Instant) *LeaseEnds {
	return &LeaseEnds{now: now, ends: map[netip.Addr]elect.Instant{}}
}

// Ahead reports whether a VIP is held and its lease has not ended.
func (l *LeaseEnds) Ahead(vip netip.Addr) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.now() < l.ends[vip]
}

func (l *LeaseEnds) set(vip netip.Addr, until elect.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[vip] = until
}

// LocalFor returns the address of this node from which to ask a VIP. If the VIP is of the
// other address family, it returns none, and the kernel chooses.
func LocalFor(self *config.Node, vip netip.Addr) netip.Addr {
	if self.Address.Is4() != vip.Is4() {
		return netip.Addr{}
	}
	return self.Address
}

// Links returns the VIPs in the form that the network watch needs.
func Links(c *config.Config) (links []arp.Link) {
	for _, v := range c.VIPs {
		links = append(links, arp.Link{VIP: v.Address, Interface: v.Interface, Gateway: v.Gateway, Silent: !v.Announce})
	}
	return links
}

// Neighbours returns the other nodes' names by address, so that a rival can be named.
func Neighbours(c *config.Config, self *config.Node) map[netip.Addr]string {
	names := map[netip.Addr]string{}
	for _, n := range c.Nodes {
		if n.Name == self.Name {
			continue
		}
		names[n.Address] = n.Name
		if n.Address2.IsValid() {
			names[n.Address2] = n.Name
		}
	}
	return names
}

// Peers returns the other nodes in the form that the network needs.
func Peers(c *config.Config, self *config.Node) (peers []member.Peer) {
	for _, n := range c.Nodes {
		if n.Name != self.Name {
			peers = append(peers, member.Peer{Name: elect.Node(n.Name), Address: n.Address, Address2: n.Address2})
		}
	}
	return peers
}
