package keepalived

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// nodes finds the nodes, and which of them the file is from.
func (s *site) nodes(c *cluster, o Options) (own Node, err error) {
	address := s.ownAddress(o)
	if len(o.Nodes) > 0 {
		c.nodes = o.Nodes
		own = o.Nodes[0]
		for _, n := range o.Nodes {
			if n.Address == address {
				own = n
			}
		}
		return own, nil
	}
	if !address.IsValid() {
		return own, errors.New("no unicast_src_ip, and no interface of it has an address here, so no node is known; give each one with --node NAME=ADDRESS, the one that the file is from first")
	}
	own = Node{"node1", address}
	for _, name := range []string{s.routerID, o.Host} {
		if name = clean(name); name != "" {
			own.Name = name
			break
		}
	}
	c.nodes = []Node{own}
	for _, in := range s.instances {
		for _, peer := range in.peers {
			s.peer(c, in.line, peer)
		}
	}
	return own, nil
}

func (s *site) peer(c *cluster, line int, peer netip.Addr) {
	known := slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Address == peer })
	switch {
	case known:
	case !usable(peer):
		s.note(line, "unicast_peer "+peer.String(), "no address that a node can have")
	case peer.Is4() != c.nodes[0].Address.Is4():
		s.note(line, "unicast_peer "+peer.String(), "all nodes need an address of one family; their VIPs may be of the other")
	case len(c.nodes) == maxNodes:
		s.note(line, "unicast_peer "+peer.String(), "a cluster has at most 64 nodes")
	default:
		used := func(name string) bool {
			return slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Name == name })
		}
		n := len(c.nodes) + 1
		for used(fmt.Sprintf("node%d", n)) {
			n++
		}
		c.nodes = append(c.nodes, Node{fmt.Sprintf("node%d", n), peer})
	}
}

func (s *site) ownAddress(o Options) netip.Addr {
	for _, in := range s.instances {
		if usable(in.own) {
			return in.own
		}
	}
	for _, in := range s.instances {
		if o.AddressesOf == nil || in.iface == "" {
			continue
		}
		for _, a := range o.AddressesOf(in.iface) {
			if usable(a) && !s.isVirtual(a) { // keepalived may run there and hold one
				return a
			}
		}
	}
	return netip.Addr{}
}

func (s *site) isVirtual(a netip.Addr) bool {
	return slices.ContainsFunc(s.instances, func(in *instance) bool {
		return slices.ContainsFunc(in.addresses, func(v address) bool { return v.ip == a })
	})
}

// usable reports whether a is an address that one machine can have and all others can
// reach.
func usable(a netip.Addr) bool {
	switch {
	case !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.Is4In6():
		return false
	case a.Is4():
		return a.As4()[0] != 0 && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
	default:
		return !a.IsLinkLocalUnicast()
	}
}
