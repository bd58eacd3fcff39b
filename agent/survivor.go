package agent

import (
	"fmt"
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
	a      *Agent
	relay  *arp.Relay
	ifname string // of this node's own address

	mu   sync.Mutex
	told map[elect.Sign]elect.Instant
}

// signEvery is how often the same sign is worth an event: whoever floods the
// segment with ARP must not keep the loop busy.
const signEvery = 20 * time.Millisecond

func newSurvivors(a *Agent) (*survivors, error) {
	s := &survivors{a: a, told: map[elect.Sign]elect.Instant{}}
	var err error
	if s.ifname, err = platform.InterfaceOf(a.Self.Address); err != nil {
		return nil, err
	}
	s.relay, err = a.Parts.Relay(arp.RelayOptions{
		Links: s.links(a.Config()), Gateway: platform.Gateway, Answered: s.answered, Heard: s.heard,
		Watch: func(ip netip.Addr) bool { return a.names().byID[vipID(ip)] != nil },
		Now:   func() time.Duration { return time.Duration(a.Now()) },
	})
	return s, err
}

// take lets the gateways of a reloaded configuration be spoken to.
func (s *survivors) take(c *config.Config) { s.relay.SetLinks(s.links(c)) }

// links are the interfaces whose gateways matter, with this node's own address
// there; none where no node may survive alone. Where it has none, nobody can be
// asked.
func (s *survivors) links(c *config.Config) map[string]netip.Addr {
	links := map[string]netip.Addr{}
	if c.Survivor == config.SurvivorNever {
		return links
	}
	if s.a.Self.Address.Is4() {
		links[s.ifname] = s.a.Self.Address
	}
	vips := map[netip.Addr]bool{}
	for _, v := range c.VIPs {
		vips[v.Address] = true
	}
	for _, v := range c.VIPs {
		if links[v.Interface].IsValid() || !s.a.Self.Holder {
			continue
		}
		if own, err := platform.AddressOn(v.Interface, vips); err == nil {
			links[v.Interface] = own
		}
	}
	return links
}

// send sends a peer's datagram through the gateway; the network calls it.
func (s *survivors) send(to elect.Node, datagram []byte) error {
	n := s.a.Config().Node(string(to))
	if n == nil {
		return nil // a reload has just taken it off
	}
	port := s.a.Config().Port
	return s.relay.Send(s.ifname, port, netip.AddrPortFrom(n.Address, port), datagram)
}

// ask carries out the machine's questions. What could not be asked is not
// answered either; why is told once a minute.
func (s *survivors) ask(questions []elect.Question) {
	for _, q := range questions {
		l := s.a.names().byID[q.VIP]
		if l == nil || l.vip == nil {
			continue
		}
		var err error
		switch q.Kind {
		case elect.AskGateway:
			err = s.relay.Ping(l.vip.Interface, netip.Addr{})
		case elect.AskRouter:
			if q.Announce {
				err = s.a.Announcer.Announce(l.address, l.vip.Interface)
			}
			if err == nil {
				err = s.relay.Ping(l.vip.Interface, l.address)
			}
		case elect.AskOwner:
			err = s.relay.AskOwner(l.vip.Interface, l.address)
		}
		if err != nil {
			s.a.recorder.warn(fmt.Sprintf("ask the network about %s", l.name), err)
		}
	}
}

// answered takes an answer of the gateway: to a VIP, or to the node's own
// address on an interface, which speaks for every VIP there.
func (s *survivors) answered(ifname string, from netip.Addr, sent time.Duration) {
	if l := s.a.names().byID[vipID(from)]; l != nil {
		s.report(elect.GatewayAnswered{VIP: l.id, Kind: elect.AskRouter, Sent: elect.Instant(sent)})
		return
	}
	leases := s.a.names().leases
	for i := range leases {
		if l := &leases[i]; l.vip != nil && l.vip.Interface == ifname {
			s.report(elect.GatewayAnswered{VIP: l.id, Kind: elect.AskGateway, Sent: elect.Instant(sent)})
		}
	}
}

// heard takes another host's ARP about a VIP.
func (s *survivors) heard(h arp.HeardARP) {
	sign := elect.Sign{VIP: vipID(h.Address)}
	if h.Asker.IsValid() {
		if sign.Asks, sign.Node = true, s.nodeAt(h.Asker); sign.Node == "" {
			return // a phone, a router: they ask all day
		}
	}
	now := s.a.Now()
	s.mu.Lock()
	again := now < s.told[sign].Add(signEvery) && s.told[sign] != 0
	if !again {
		s.told[sign] = now
	}
	s.mu.Unlock()
	if !again {
		s.report(sign)
	}
}

func (s *survivors) report(ev elect.Event) { s.a.report(ev) }

func (s *survivors) nodeAt(ip netip.Addr) elect.Node {
	for _, n := range s.a.Config().Nodes {
		if n.Address == ip {
			return elect.Node(n.Name)
		}
	}
	return ""
}
