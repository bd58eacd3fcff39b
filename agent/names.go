package agent

import (
	"net/netip"

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

// isOurs reports whether an address is, or was, a configured VIP.
func (n *names) isOurs(ip netip.Addr) bool { return ip.IsValid() && n.byID[vipID(ip)] != nil }
