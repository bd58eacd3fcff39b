package keepalived

import "slices"

// vips makes a VIP of each address of an instance, and returns the first one.
func (s *site) vips(c *cluster, in *instance, own Node) (first *vip) {
	before := len(c.vips)
	for _, a := range in.addresses {
		v := &vip{address: a.ip, iface: in.iface, prefer: s.preferred(c, in, own)}
		if a.iface != "" {
			v.iface = a.iface
		}
		if why := c.refuse(v); why != "" {
			s.note(a.line, a.ip.String(), why)
			continue
		}
		if v.iface != "" && !isInterface(v.iface) {
			s.note(a.line, "interface "+v.iface, "no interface can be called that")
			v.iface = ""
		}
		v.name = unused(in.name, "vip", func(name string) bool {
			return name == "node" || slices.ContainsFunc(c.vips, func(v *vip) bool { return v.name == name })
		})
		c.vips = append(c.vips, v)
	}
	switch made := c.vips[before:]; len(made) {
	case 0:
		return nil
	case 1:
		return made[0]
	default:
		s.note(in.line, in.name+" has several addresses", "each is a VIP of its own here; their prefer is the same, but nothing ties them, and scripts run for the first")
		return made[0]
	}
}

// refuse says why an address cannot be a VIP; "" means it can.
func (c *cluster) refuse(v *vip) string {
	switch {
	case v.address.Is6() && v.address.IsLinkLocalUnicast():
		return "VRRP wants a link-local address, sipalive does not: it is no phone's"
	case !usable(v.address) || v.address.IsLoopback():
		return "no address that a phone could reach"
	case slices.ContainsFunc(c.vips, func(o *vip) bool { return o.address == v.address }):
		return "the address is a VIP already"
	case slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Address == v.address }):
		return "the address is a node's own, and no VIP: phones that use it need another"
	case len(c.vips) == maxVIPs:
		return "a cluster has at most 256 VIPs"
	}
	return ""
}

// preferred returns this node if the file makes it MASTER. Otherwise, with two nodes, it
// returns the other one.
func (s *site) preferred(c *cluster, in *instance, own Node) string {
	switch {
	case in.master:
		return own.Name
	case len(c.nodes) == 2:
		for _, n := range c.nodes {
			if n.Name != own.Name {
				return n.Name
			}
		}
	case len(c.nodes) > 2:
		s.note(in.line, "state BACKUP of "+in.name, "the MASTER's file says which node is preferred: set prefer")
	}
	return ""
}
