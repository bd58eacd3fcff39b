package agent

import (
	"net/netip"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/elect"
	"sipalive/platform"
)

// RelayLink returns the router that is to pass heartbeats on. This is the VIPs' router,
// reached from the node's address on the VIPs' interface. If neither address is there,
// the link has the node's first address and no gateway. Where no node may survive alone,
// the link is empty.
func RelayLink(c *config.Config, self *config.Node) (arp.RelayLink, error) {
	if c.Survivor == config.SurvivorNever {
		return arp.RelayLink{}, nil
	}
	var first arp.RelayLink
	for _, own := range []netip.Addr{self.Address, self.Address2} {
		if !own.IsValid() {
			continue
		}
		ifname, err := platform.InterfaceOf(own)
		switch {
		case err != nil && own == self.Address:
			return arp.RelayLink{}, err
		case err != nil:
			continue // the second path does not exist now
		}
		link := arp.RelayLink{Interface: ifname, Own: own}
		for _, v := range c.VIPs {
			if v.Announce && v.Interface == ifname && v.Address.Is4() == own.Is4() {
				link.Gateway = v.Gateway
				return link, nil
			}
		}
		if !first.Own.IsValid() {
			first = link
		}
	}
	return first, nil
}

// relays reports whether the heartbeats of link go through this VIP's router. Only then
// can the router confirm that the others are silent.
func relays(link arp.RelayLink, v config.VIP) bool {
	return v.Interface == link.Interface && v.Address.Is4() == link.Own.Is4() && v.Gateway == link.Gateway
}

// send sends a datagram to a peer through the gateway. The network calls it.
func (s *survivors) send(to elect.Node, datagram []byte) error {
	c := s.a.inForce.Load()
	n := c.config.Node(string(to))
	if n == nil {
		return nil // a reload has just removed the peer
	}
	address := n.Address
	if c.relay.Own != s.a.Self.Address && n.Address2.IsValid() {
		address = n.Address2
	}
	return s.a.watch.Relay(c.config.Port, netip.AddrPortFrom(address, c.config.Port), datagram)
}
