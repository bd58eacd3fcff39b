package arp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// rivalry is a host on the segment that says what it likes.
type rivalry struct {
	t    testing.TB
	conn *packet.Conn
}

func (s *segment) rival() *rivalry {
	r := &rivalry{t: s.t}
	s.other.Do(func() {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			r.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	})
	s.t.Cleanup(func() { r.conn.Close() })
	return r
}

// claims says that a VIP is at mac.
func (r *rivalry) claims(vip netip.Addr, mac hardwareAddr) {
	r.t.Helper()
	if vip.Is6() {
		f, err := advertisement(mac, vip)
		if err != nil {
			r.t.Fatal(err)
		}
		r.write(f)
		return
	}
	f := announcement(operationRequest, mac, vip)
	r.write(f[:])
}

func (r *rivalry) write(f []byte) {
	r.t.Helper()
	if _, err := r.conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]}); err != nil {
		r.t.Fatal(err)
	}
}

func (s *segment) rivalTold(n int) (r Rival) {
	s.t.Helper()
	s.await("word of a rival", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.rivals) < n {
			return false
		}
		r = s.rivals[n-1]
		return true
	})
	return r
}

// A rival that claims constantly is told at once, defended against once, and the
// router is right again soon after its end.
func TestRivalConstant(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.take(vip)
		s.proven(vip)
		stalled := stalls(t)
		r, began, last := s.rival(), bootNow(), bootNow()
		var widest time.Duration // a machine that stalls makes a rival that speaks seldom
		sent := 0
		for ; bootNow()-began < 2*time.Second; sent++ {
			r.claims(vip, alienMAC)
			widest = max(widest, bootNow()-last)
			last = bootNow()
			time.Sleep(100 * time.Millisecond)
		}
		mine := hardwareAddr(s.near.MAC("eth0"))
		s.await("the router to be right", func() bool { return s.router.points(vip) == mine })
		healed := bootNow() - last
		told := s.rivalTold(1)
		t.Logf("told after %v, right %v after its last claim", told.At-began, healed)
		if told.MAC.String() != macText(alienMAC) || told.At-began > time.Second+stalled() || told.Over {
			t.Errorf("told %+v", told)
		}
		if healed > 500*time.Millisecond+stalled()+widest {
			t.Errorf("router right %v after the rival's end", healed)
		}
		if d := s.watch.Stats().Defences; d > 2 { // one against it, one after it
			t.Errorf("%d announcements in 2 s of rivalry", d)
		}
		s.proven(vip)
		over := s.rivalTold(2)
		if !over.Over || over.Claims != sent {
			t.Errorf("told %+v", over)
		}
	})
}

// One claim, while the VIP is being taken over and at rest.
func TestRivalOnce(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.take(vip)
		stalled := stalls(t)
		r := s.rival()
		mine := hardwareAddr(s.near.MAC("eth0"))
		for i := range 2 {
			at := bootNow()
			r.claims(vip, alienMAC)
			s.await("the claim", func() bool { return s.watch.Stats().Claims > uint64(i) })
			s.await("the router to be right", func() bool { return s.router.points(vip) == mine })
			if told := s.rivalTold(2*i + 1); told.At < at || told.At-at > time.Second+stalled() || told.MAC.String() != macText(alienMAC) {
				t.Errorf("told %+v of a claim at %v", told, at)
			}
			s.rivalTold(2*i + 2)
		}
	})
}

// A machine that has the VIP too, and says so only to whom it is asked by, the router
// for one, is found once the router does not follow.
func TestSilentRival(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.other.Sysctl("net/ipv6/conf/eth0/accept_dad", "0")
		s.other.Add("eth0", netip.PrefixFrom(vip, vip.BitLen()).String())
		s.answers(vip)
		s.router.set(func(r *router) { r.table[vip], r.request, r.reply, r.unicast = otherMAC, false, false, false })
		at := s.take(vip)
		told := s.rivalTold(1)
		t.Logf("told %v after the takeover", told.At-at)
		if told.MAC.String() != macText(otherMAC) || told.Over {
			t.Errorf("told %+v", told)
		}
		s.await("claims", func() bool { return s.watch.Stats().Claims >= 2 })
		stats, took := s.watch.Stats(), bootNow()-at
		if stats.Owners < stats.Claims || stats.Owners > uint64(took/time.Second)+1 {
			t.Errorf("%d questions in %v, %d answers", stats.Owners, took, stats.Claims)
		}
		s.mu.Lock()
		if len(s.rivals) != 1 {
			t.Errorf("told %d times: %+v", len(s.rivals), s.rivals)
		}
		s.mu.Unlock()
		s.router.set(func(r *router) { r.unicast = true })
		s.proven(vip)
	})
}

// A rival that speaks once in a while is not answered each time.
func TestRivalSeldom(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.answers(vip1)
	s.take(vip1)
	stalled := stalls(t)
	r := s.rival()
	for range 6 {
		r.claims(vip1, alienMAC)
		time.Sleep(600 * time.Millisecond)
	}
	if d := s.watch.Stats().Defences; d > 2 && stalled() < 300*time.Millisecond {
		t.Errorf("%d announcements against 6 claims in 3.6 s", d)
	}
}

// What is no rival: our own frames come back, somebody looks for duplicates,
// the last holder's frame was late, a VIP is another's.
func TestNoRival(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"}, Link{VIP: vip2, Interface: "eth0"})
	s.answers(vip1)
	r := s.rival()
	hello := question(broadcast, otherMAC, otherAddr, gatewayAddr)
	r.write(hello[:])
	s.await("pbx2's MAC", func() bool {
		s.watch.mu.Lock()
		defer s.watch.mu.Unlock()
		return s.watch.peerMACs[otherMAC] == otherAddr
	})
	s.take(vip1)
	r.claims(vip1, otherMAC)
	r.claims(vip1, hardwareAddr(s.near.MAC("eth0")))
	probe := question(broadcast, alienMAC, netip.IPv4Unspecified(), vip1)
	r.write(probe[:])
	r.claims(vip2, alienMAC)
	bad := announcement(operationRequest, alienMAC, vip1)
	bad[18] = 7
	r.write(bad[:])
	r.claims(vip1, alienMAC) // what comes last is heard last
	if told := s.rivalTold(1); told.MAC.String() != macText(alienMAC) || told.Node != "" {
		t.Errorf("told %+v", told)
	}
	if n := s.watch.Stats().Claims; n != 1 {
		t.Errorf("%d claims", n)
	}
	s.rivalTold(2)
	r.claims(vip1, otherMAC)
	if told := s.rivalTold(3); told.Node != "pbx2" {
		t.Errorf("told %+v", told)
	}
}

// A thousand MACs that claim a VIP do not fill the journal.
func TestRivalFlood(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.answers(vip1)
	s.take(vip1)
	r := s.rival()
	for i := range 1000 {
		r.claims(vip1, hardwareAddr{2, 6, 6, 6, byte(i >> 8), byte(i)})
	}
	s.await("claims", func() bool { return s.watch.Stats().Claims > 100 })
	s.rivalTold(1)
	s.rivalTold(2)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rivals) != 2 || !s.rivals[1].Over {
		t.Errorf("told %d times: %+v", len(s.rivals), s.rivals)
	}
}
