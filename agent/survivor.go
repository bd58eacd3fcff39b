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

// survivors asks the network what a node without a majority has to know, and
// sends heartbeats through the gateway (§4.6).
type survivors struct {
	a *Agent

	mu   sync.Mutex
	told map[elect.Sign]elect.Instant
}

// signEvery is how often the same sign is worth an event: whoever floods the
// segment with ARP must not keep the loop busy.
const signEvery = 20 * time.Millisecond

func newSurvivors(a *Agent) *survivors {
	return &survivors{a: a, told: map[elect.Sign]elect.Instant{}}
}

// RelayLink is the router that is to pass heartbeats on: the VIPs', reached from
// the address of this node that is on their interface; its first address where
// neither is. None where no node may survive alone.
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
			continue // a second path that is not there
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

// relays reports whether a VIP's router is the one that link's heartbeats go
// through: only then it can vouch for the silence of the others.
func relays(link arp.RelayLink, v config.VIP) bool {
	return v.Interface == link.Interface && v.Address.Is4() == link.Own.Is4() && v.Gateway == link.Gateway
}

// send sends a peer's datagram through the gateway; the network calls it.
func (s *survivors) send(to elect.Node, datagram []byte) error {
	c := s.a.inForce.Load()
	n := c.config.Node(string(to))
	if n == nil {
		return nil // a reload has just taken it off
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

// evidence takes an answer, or the word that a question has left.
func (s *survivors) evidence(e arp.Evidence) {
	for kind, asked := range questionKinds {
		if asked == e.Kind {
			s.a.report(elect.Evidence{VIP: vipID(e.VIP), Kind: kind, Sent: elect.Instant(e.Sent)})
		}
	}
}

// sign takes another machine's word about a VIP.
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
