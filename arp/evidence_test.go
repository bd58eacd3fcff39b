package arp

import (
	"net/netip"
	"testing"
	"time"
)

// told counts the evidence of one kind for a VIP, and returns when the newest question
// left.
func (s *segment) told(vip netip.Addr, kind Question) (n int, sent time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.evidence {
		if e.VIP == vip && e.Kind == kind {
			n, sent = n+1, max(sent, e.Sent)
		}
	}
	return n, sent
}

func (s *segment) heardOf(want Sign) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.signs {
		if g == want {
			return true
		}
	}
	return false
}

// The gateway is asked once for all VIPs, and its answer to our own address is evidence
// for each. A ping from a VIP is answered only while the VIP is held and the router's
// table points here.
func TestEvidence(t *testing.T) {
	t.Parallel()
	for name, vips := range map[string][2]netip.Addr{"IPv4": {vip1, vip2}, "IPv6": {vip6, netip.MustParseAddr("2001:db8::102")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := join(t)
			s.open(Link{VIP: vips[0], Interface: "eth0"}, Link{VIP: vips[1], Interface: "eth0"})
			s.answers(vips[0])
			before := s.watch.Stats().Pings
			s.watch.Ask(vips[0], AskGateway, false)
			s.watch.Ask(vips[1], AskGateway, false)
			for _, v := range vips {
				s.await("the gateway's answer", func() bool { n, sent := s.told(v, AskGateway); return n == 1 && sent > 0 })
			}
			if n := s.watch.Stats().Pings - before; n > 2 {
				t.Errorf("%d pings for one question of two VIPs", n)
			}
			s.watch.Ask(vips[0], AskRouter, true) // not held yet
			at := bootNow()
			s.take(vips[0])
			s.proven(vips[0])
			s.watch.Ask(vips[0], AskRouter, false)
			s.await("the router's answer", func() bool { n, sent := s.told(vips[0], AskRouter); return n == 1 && sent > at })
			s.router.set(func(r *router) { r.table[vips[0]] = otherMAC; r.unicast, r.request, r.reply = false, false, false })
			s.watch.Ask(vips[0], AskRouter, false)
			s.await("a ping without an answer", func() bool { return s.watch.Stats().Pings > before+3 })
			if n, _ := s.told(vips[0], AskRouter); n != 1 {
				t.Errorf("%d answers though the router's table points elsewhere", n)
			}
		})
	}
}

// With tell, Ask makes a router follow that takes no announcement. Otherwise a node that
// holds alone says nothing, neither to a router that forgot the VIP nor to a rival.
func TestAloneSpeaksWhenAskedOnly(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.router.set(func(r *router) { r.request, r.reply = false, false; r.table[vip1] = otherMAC })
	s.answers(vip1)
	s.near.Add("eth0", vip1.String()+"/32")
	s.watch.Hold(vip1, true)
	s.await("some pings in vain", func() bool { return s.watch.Stats().Pings >= 6 })
	if st := s.watch.Stats(); st.Asked != 0 || s.announcer.Stats().Sent != 0 {
		t.Fatalf("spoke unasked: %+v", st)
	}
	s.watch.Ask(vip1, AskRouter, true)
	s.await("the router's table to point here", func() bool { return s.router.points(vip1) == hardwareAddr(s.near.MAC("eth0")) })
	s.proven(vip1)
	sent, asked := s.announcer.Stats().Sent, s.watch.Stats().Asked
	r := s.rival()
	r.claims(vip1, alienMAC)
	s.await("a sign of it", func() bool { return s.heardOf(Sign{VIP: vip1}) })
	s.router.set(func(r *router) { r.table[vip1] = alienMAC; r.unicast = false })
	s.await("the router's table to be missed", func() bool { return s.state(vip1).State == RouterUnproven })
	if st := s.watch.Stats(); st.Asked != asked || st.Defences != 0 || s.announcer.Stats().Sent != sent || len(s.rivals) > 0 {
		t.Errorf("fought: %+v", st)
	}
}

// The question for an owner comes from our own address. It leaves so slowly that no
// switch shuts the port, and a question that did not leave is not told.
func TestAskOwner(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"}, Link{VIP: vip6, Interface: "eth0"})
	s.answers(vip1)
	s.answers(vip6)
	s.other.Add("eth0", vip1.String()+"/32")
	s.other.Sysctl("net/ipv6/conf/eth0/accept_dad", "0")
	s.other.Add("eth0", vip6.String()+"/128")
	for _, v := range []netip.Addr{vip1, vip6} {
		s.await("an answer for "+v.String(), func() bool {
			s.watch.Ask(v, AskOwner, false)
			time.Sleep(20 * time.Millisecond)
			return s.heardOf(Sign{VIP: v})
		})
	}
	before := s.watch.Stats().Owners
	began := bootNow()
	for range 100 {
		s.watch.Ask(vip1, AskOwner, false)
	}
	s.await("some to leave", func() bool { return s.watch.Stats().Owners > before })
	time.Sleep(50 * time.Millisecond)
	n, _ := s.told(vip1, AskOwner)
	m, _ := s.told(vip6, AskOwner)
	if sent := s.watch.Stats().Owners; int(sent) != n+m {
		t.Errorf("%d left, %d told", sent, n+m)
	}
	if sent := s.watch.Stats().Owners - before; sent > mostFrames && bootNow()-began < time.Second {
		t.Errorf("%d left at once", sent)
	}
	if s.router.points(vip1) == hardwareAddr(s.near.MAC("eth0")) {
		t.Error("the router took a question for an announcement")
	}
}

// Signs are what another host claims and what another node asks. What the gateway says
// for others does not count, nor our own frame that came back.
func TestSigns(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.known(vip1)
	r := s.rival()
	own := hardwareAddr(s.near.MAC("eth0"))
	for _, f := range []frame{
		announcement(operationRequest, own, vip1),               // our own, came back
		announcement(operationReply, routerMAC, vip1),           // the gateway's, for others
		announcement(operationReply, alienMAC, vip2),            // no VIP of ours
		question(broadcast, alienMAC, gatewayAddr.Next(), vip1), // a phone asks
	} {
		r.write(f[:])
	}
	ask := question(broadcast, otherMAC, otherAddr, vip1)
	r.write(ask[:])
	s.await("pbx2's question", func() bool { return s.heardOf(Sign{VIP: vip1, Node: "pbx2", Asks: true}) })
	r.claims(vip1, alienMAC)
	s.await("a claim", func() bool { return s.heardOf(Sign{VIP: vip1}) })
	r.claims(vip1, otherMAC)
	s.await("pbx2's claim", func() bool { return s.heardOf(Sign{VIP: vip1, Node: "pbx2"}) })
	if len(s.signs) != 3 {
		t.Errorf("signs %+v", s.signs)
	}
}

// A gateway whose MAC is not known yet is not pinged from a VIP: the frames would reach
// no station, many times a second.
func TestAskRouterUnresolved(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.router.set(func(r *router) { r.down = true })
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.near.Add("eth0", vip1.String()+"/32")
	s.watch.Hold(vip1, true)
	for range 5 {
		s.watch.Ask(vip1, AskRouter, false)
		s.await("the question to be taken", func() bool {
			s.watch.askMu.Lock()
			defer s.watch.askMu.Unlock()
			return len(s.watch.asked) == 0
		})
	}
	if st := s.watch.Stats(); st.Pings != 0 {
		t.Errorf("%d pings to a gateway of no known MAC", st.Pings)
	}
	s.router.set(func(r *router) { r.down = false })
	s.answers(vip1)
	s.await("an answer to the VIP", func() bool {
		s.watch.Ask(vip1, AskRouter, false)
		time.Sleep(20 * time.Millisecond)
		n, _ := s.told(vip1, AskRouter)
		return n > 0
	})
}
