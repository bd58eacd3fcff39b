package agent

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sipalive/arp"
	"sipalive/elect"
)

// survivors asks the network what a node without a majority has to know, and
// sends heartbeats through the gateway (§4.6).
type survivors struct {
	a     *Agent
	relay *arp.Relay // nil: survivor = "never"
	nodes map[netip.Addr]elect.Node
	peers map[elect.Node]netip.Addr

	mu   sync.Mutex
	told map[elect.Sign]elect.Instant
}

// signEvery is how often the same sign is worth an event: whoever floods the
// segment with ARP must not keep the loop busy.
const signEvery = 20 * time.Millisecond

func newSurvivors(a *Agent) (*survivors, error) {
	s := &survivors{a: a, nodes: map[netip.Addr]elect.Node{}, peers: map[elect.Node]netip.Addr{}, told: map[elect.Sign]elect.Instant{}}
	for _, n := range a.Config.Nodes {
		s.nodes[n.Address], s.peers[elect.Node(n.Name)] = elect.Node(n.Name), n.Address
	}
	if a.Parts.Relay == nil {
		return s, nil
	}
	var err error
	s.relay, err = a.Parts.Relay(s.answered, s.heard)
	return s, err
}

// send sends a peer's datagram through the gateway; the network calls it.
func (s *survivors) send(to elect.Node, datagram []byte) error {
	if s.relay == nil {
		return nil
	}
	return s.relay.Send(s.a.Interface, s.a.Config.Port, netip.AddrPortFrom(s.peers[to], s.a.Config.Port), datagram)
}

// ask carries out the machine's questions. What could not be asked is not
// answered either; why is told once a minute.
func (s *survivors) ask(questions []elect.Question) {
	for _, q := range questions {
		l := s.a.names.byID[q.VIP]
		if s.relay == nil || l == nil || l.vip == nil {
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
	if l := s.a.names.byID[vipID(from)]; l != nil {
		s.report(elect.GatewayAnswered{VIP: l.id, Kind: elect.AskRouter, Sent: elect.Instant(sent)})
		return
	}
	for i := range s.a.names.leases {
		if l := &s.a.names.leases[i]; l.vip != nil && l.vip.Interface == ifname {
			s.report(elect.GatewayAnswered{VIP: l.id, Kind: elect.AskGateway, Sent: elect.Instant(sent)})
		}
	}
}

// heard takes another host's ARP about a VIP.
func (s *survivors) heard(h arp.HeardARP) {
	sign := elect.Sign{VIP: vipID(h.Address)}
	if h.Asker.IsValid() {
		if sign.Asks, sign.Node = true, s.nodes[h.Asker]; sign.Node == "" {
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

// close ends what newSurvivors opened.
func (s *survivors) close() {
	if s.relay != nil {
		_ = s.relay.Close()
	}
}
