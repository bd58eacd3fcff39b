package arp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"sipalive/platform/stalltest"
)

// rivalry is a host on the segment that sends any claim.
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

// A constant rival is told at once and defended against once. The router is right again
// soon after the rival's last claim.
func TestRivalConstant(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.take(vip)
		s.proven(vip)
		stalled := stalltest.Watch(t)
		r, began, last := s.rival(), bootNow(), bootNow()
		var widest time.Duration // if this machine stalls, the rival speaks less often
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
		if d := s.watch.Stats().Defences; d > 2 { // one against the rival, one after its end
			t.Errorf("%d announcements in 2 s of rivalry", d)
		}
		s.proven(vip)
		over := s.rivalTold(2)
		if !over.Over || over.Claims != sent {
			t.Errorf("told %+v", over)
		}
	})
}

// One claim: first while the VIP is being taken over, then at rest with no rival known.
func TestRivalOnce(t *testing.T) {
	family(t, func(t *testing.T, s *segment, vip netip.Addr) {
		s.answers(vip)
		s.take(vip)
		stalled := stalltest.Watch(t)
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
			s.watch.LetGo(vip)
			s.watch.Hold(vip, false)
			s.proven(vip)
		}
	})
}

// A machine that also has the VIP, and says so only when asked (for example by the
// router), is found once the router does not follow.
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

// A rival that claims now and then is not answered each time. The router alone is told
// after each of its claims.
func TestRivalSeldom(t *testing.T) {
	t.Parallel()
	s := join(t)
	s.open(Link{VIP: vip1, Interface: "eth0"})
	s.answers(vip1)
	s.take(vip1)
	stalled := stalltest.Watch(t)
	r, mine := s.rival(), hardwareAddr(s.near.MAC("eth0"))
	for i := range 6 {
		if s.router.set(func(r *router) { r.request, r.reply = i%2 == 0, false }); i%2 == 0 {
			r.claims(vip1, alienMAC)
		} else {
			s.router.set(func(r *router) { r.table[vip1] = alienMAC })
			r.claims(vip1, alienMAC)
		}
		at, late := bootNow(), stalled()
		s.await("the claim", func() bool { return s.watch.Stats().Claims > uint64(i) })
		s.await("the router to be right", func() bool { return s.router.points(vip1) == mine })
		if took := bootNow() - at; took > 450*time.Millisecond+stalled()-late {
			t.Errorf("router right %v after claim %d", took, i)
		}
		time.Sleep(600*time.Millisecond - (bootNow() - at))
	}
	if d := s.watch.Stats().Defences; d > 2 && stalled() < 300*time.Millisecond {
		t.Errorf("%d announcements against 6 claims in 3.6 s", d)
	}
}

// These are not rivals: our own frames that come back, duplicate address detection, a
// late frame of the last holder, a claim of a VIP that is not held here.
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
	r.claims(vip1, alienMAC) // what is sent last is heard last
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

// paced is a rival on the test's own clock, with the reactions to it.
type paced struct {
	now, next time.Duration
	w         *Watch
	v         *watched
	told      []Rival
	announced []time.Duration
}

func newPaced() *paced {
	p := &paced{now: time.Hour}
	p.w = &Watch{wake: make(chan struct{}, 1), ownAt: 24 * time.Hour, vips: map[netip.Addr]*watched{}}
	p.w.o = WatchOptions{Announcer: new(Announcer), OnRival: func(r Rival) { p.told = append(p.told, r) }}
	p.v = &watched{Link: Link{VIP: vip1}, gw: new(gateway), held: true}
	return p
}

// until lets time pass.
func (p *paced) until(at time.Duration) {
	for p.next != 0 && p.next <= at {
		p.now = max(p.now, p.next)
		p.does(func() {})
	}
	p.now = at
}

func (p *paced) does(f func()) {
	before := p.w.stats.Defences
	f()
	p.next = max(p.v.rivalTick(p.w, p.now), p.now+time.Millisecond)
	for range p.w.stats.Defences - before {
		p.announced = append(p.announced, p.now)
	}
	for _, f := range p.w.told {
		f()
	}
	p.w.told = nil
}

func (p *paced) claim(mac hardwareAddr) {
	p.does(func() { p.v.claimed(p.w, p.now, heard{mac: mac}) })
}

// However far apart a rival's claims are, the defence comes at most every 10 s. One more
// comes after the first claim, in case that was the only one, and one when the rival has
// ended. The alarms do not fill the journal.
func TestRivalPaces(t *testing.T) {
	for _, c := range []struct {
		every, lasts, heals time.Duration
		told                int
	}{
		{100 * time.Millisecond, 25 * time.Second, 250 * time.Millisecond, 2},
		{time.Second, 25 * time.Second, 1500 * time.Millisecond, 2},
		{4 * time.Second, 30 * time.Second, 6 * time.Second, 4},
		{9 * time.Second, 60 * time.Second, 10 * time.Second, 4},
		{12 * time.Second, 90 * time.Second, 10 * time.Second, 4},
	} {
		p := newPaced()
		began, last := p.now, p.now
		for at := began; at <= began+c.lasts; at += c.every {
			p.until(at)
			p.claim(alienMAC)
			last = at
		}
		p.until(last + time.Minute)
		for i, at := range p.announced[1:] {
			early := i == 0 || at > last
			if gap := at - p.announced[i]; gap < defendEvery && !early {
				t.Errorf("every %v: announced %v after the last time, %v after the first claim", c.every, gap, at-began)
			}
		}
		if n := int(c.lasts/defendEvery) + 3; len(p.announced) > n || len(p.announced) < 2 {
			t.Errorf("every %v: %d announcements in %v, want at most %d", c.every, len(p.announced), c.lasts, n)
		}
		if healed := p.announced[len(p.announced)-1] - last; healed < 0 || healed > c.heals {
			t.Errorf("every %v: all are told %v after the last claim, want %v", c.every, healed, c.heals)
		}
		if len(p.told) > c.told || p.told[0].At != began || p.told[0].Over || !p.told[len(p.told)-1].Over {
			t.Errorf("every %v: told %+v", c.every, p.told)
		}
	}
}

// The router is told after each pause, but the pings it left unanswered still count.
// Otherwise a rival that claims every second would let the router pass for proven for
// ever.
func TestRivalKeepsTries(t *testing.T) {
	p := newPaced()
	began := p.now
	p.claim(alienMAC)
	p.until(began + 900*time.Millisecond) // all were told again, in case that was the only claim
	p.v.tries = missesMost - 1
	for at := began + time.Second; at < began+6*time.Second; at += time.Second {
		p.until(at)
		p.claim(alienMAC)
	}
	if !p.v.proving || p.v.tries != missesMost-1 {
		t.Errorf("proving %t with %d tries, want %d", p.v.proving, p.v.tries, missesMost-1)
	}
}

// A rival that claims a few times, pauses and comes back causes one defence in 10 s and
// one announcement after a pause.
func TestRivalInSpells(t *testing.T) {
	p := newPaced()
	began := p.now
	for at := began; at < began+time.Minute; at += 4 * time.Second {
		for i := range time.Duration(4) {
			p.until(at + i*100*time.Millisecond)
			p.claim(alienMAC)
		}
	}
	p.until(began + 2*time.Minute)
	if n := len(p.announced); n > 2*6+1 {
		t.Errorf("%d announcements in a minute of spells: %v", n, p.announced)
	}
}

// Another machine that claims the VIP just after a rival fell silent is still told, once
// the last alarm is 10 s old. So is a rival that comes back.
func TestRivalBackSoon(t *testing.T) {
	for _, mac := range []hardwareAddr{alienMAC, otherMAC} {
		p := newPaced()
		began := p.now
		p.claim(alienMAC)
		p.until(began + 5*time.Second)
		if len(p.told) != 2 || !p.told[1].Over {
			t.Fatalf("told %+v", p.told)
		}
		p.claim(mac)
		p.until(began + time.Minute)
		if len(p.told) != 4 || p.told[2].Over || p.told[2].MAC.String() != macText(mac) || p.told[2].At != began+defendEvery || !p.told[3].Over || p.told[3].Claims != 1 {
			t.Errorf("told %+v", p.told)
		}
	}
}
