package agent

import (
	"sync"
	"time"

	"sipalive/arp"
	"sipalive/elect"
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
