package agent

import (
	"net/netip"
	"sync"
	"time"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/elect"
	"sipalive/platform"
)

// survivors asks the network what a node without a majority has to know, and sends
// heartbeats through the gateway (§4.6).
type survivors struct {
	a *Agent

	mu   sync.Mutex
	told map[elect.Sign]elect.Instant
}

// signEvery is the time in which the same sign makes one event: a flood of ARP on the
// segment must not keep the loop busy.
const signEvery = 20 * time.Millisecond

func newSurvivors(a *Agent) *survivors {
	return &survivors{a: a, told: map[elect.Sign]elect.Instant{}}
}

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

// ask carries out the machine's questions.
func (s *survivors) ask(questions []elect.Question) {
	for _, q := range questions {
		if l := s.a.names().byID[q.VIP]; l != nil && l.vip != nil {
			s.a.watch.Ask(l.address, questionKinds[q.Kind], q.Announce)
		}
	}
}

var questionKinds = map[elect.QuestionKind]arp.Question{elect.AskGateway: arp.AskGateway, elect.AskRouter: arp.AskRouter, elect.AskOwner: arp.AskOwner}

// evidence takes an answer, or the report that a question has left.
func (s *survivors) evidence(e arp.Evidence) {
	for kind, asked := range questionKinds {
		if asked == e.Kind {
			s.a.report(elect.Evidence{VIP: vipID(e.VIP), Kind: kind, Sent: elect.Instant(e.Sent)})
		}
	}
}

// sign takes a sign of another machine for a VIP.
func (s *survivors) sign(heard arp.Sign) {
	sign := elect.Sign{VIP: vipID(heard.VIP), Node: elect.Node(heard.Node), Asks: heard.Asks}
	now := s.a.Now()
	s.mu.Lock()
	again := now < s.told[sign].Add(signEvery) && s.told[sign] != 0
	if !again {
		s.told[sign] = now
	}
	s.mu.Unlock()
	if !again {
		s.a.report(sign)
	}
}
