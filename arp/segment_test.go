package arp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"sipalive/platform"
	"sipalive/platform/nstest"
)

var (
	nodeAddr    = netip.MustParseAddr("192.0.2.11")
	otherAddr   = netip.MustParseAddr("192.0.2.12")
	gatewayAddr = netip.MustParseAddr("192.0.2.1")
	node6       = netip.MustParseAddr("2001:db8::11")
	vip6        = netip.MustParseAddr("2001:db8::101")
	gateway6    = netip.MustParseAddr("fe80::1")
)

var (
	routerMAC = hardwareAddr{2, 0, 0, 0, 0, 0x01}
	otherMAC  = hardwareAddr{2, 0, 0, 0, 0, 0x12} // the last holder
	alienMAC  = hardwareAddr{2, 0, 0, 0, 0, 0x66}
)

// segment is a switch with this test's host, another host and a router.
type segment struct {
	t                  testing.TB
	near, other, plain *nstest.Namespace // plain is the router's: it has no address, so its kernel answers nothing
	router             *router
	announcer          *Announcer
	watch              *Watch

	mu       sync.Mutex
	proofs   []Proof
	rivals   []Rival
	evidence []Evidence
	signs    []Sign
	gateways []GatewayState // of the first link's gateway
}

// plug connects a namespace's eth0 to a switch.
func plug(n, sw *nstest.Namespace, bridge netlink.Link, port string) {
	n.Wire("eth0", sw, port)
	sw.Master(port, bridge)
}

// join makes the segment. The test's host has 192.0.2.11 and 2001:db8::11, and default
// routes to 192.0.2.1 and fe80::1. Only the test's own router answers there.
func join(t testing.TB) *segment {
	t.Helper()
	s := &segment{t: t, near: nstest.Enter(t)}
	sw := s.near.Beside()
	s.other, s.plain = s.near.Beside(), s.near.Beside()
	bridge := sw.Bridge("switch0")
	plug(s.near, sw, bridge, "near")
	plug(s.other, sw, bridge, "other")
	plug(s.plain, sw, bridge, "router")
	s.other.SetMAC("eth0", otherMAC[:])
	s.near.Sysctl("net/ipv6/conf/eth0/accept_dad", "0")
	s.near.Add("eth0", nodeAddr.String()+"/24")
	s.near.Add("eth0", node6.String()+"/64")
	s.near.DefaultRoute("eth0", gatewayAddr)
	s.near.DefaultRoute("eth0", gateway6)
	s.router = startRouter(t, s.plain)
	return s
}

func openAlarms(t testing.TB) *platform.Alarms {
	t.Helper()
	alarms, err := platform.OpenAlarms()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = alarms.Close() })
	return alarms
}

// open starts announcer and watch.
func (s *segment) open(links ...Link) {
	s.t.Helper()
	var err error
	if s.announcer, err = New(Options{Refresh: time.Minute}); err != nil {
		s.t.Fatal(err)
	}
	s.watch, err = OpenWatch(WatchOptions{
		Links: links, Announcer: s.announcer, Refresh: time.Second, Now: bootNow, Alarms: openAlarms(s.t),
		Peers:    map[netip.Addr]string{otherAddr: "pbx2"},
		OnRouter: func(p Proof) { s.mu.Lock(); s.proofs = append(s.proofs, p); s.mu.Unlock() },
		OnRival:  func(r Rival) { s.mu.Lock(); s.rivals = append(s.rivals, r); s.mu.Unlock() },
		OnSign:   func(g Sign) { s.mu.Lock(); s.signs = append(s.signs, g); s.mu.Unlock() },
		Relay:    RelayLink{Interface: "eth0", Own: nodeAddr},

		OnEvidence: func(e Evidence) { s.mu.Lock(); s.evidence = append(s.evidence, e); s.mu.Unlock() },
		OnGateway: func(vip netip.Addr, g GatewayState) {
			if s.mu.Lock(); vip == links[0].VIP {
				s.gateways = append(s.gateways, g)
			}
			s.mu.Unlock()
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	run(s.t, s.watch)
	s.t.Cleanup(func() {
		if err := s.announcer.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

// known waits until the gateway's MAC is known, as it is on a node that holds nothing.
func (s *segment) known(vip netip.Addr) {
	s.t.Helper()
	s.await("the gateway to be known", func() bool { return s.watch.Gateway(vip).MAC != nil })
}

// answers waits until the gateway has answered a ping from the node's address.
func (s *segment) answers(vip netip.Addr) {
	s.t.Helper()
	s.await("the gateway to answer", func() bool { return s.watch.Gateway(vip).Answers })
}

// take binds, announces and holds a VIP, as the agent does.
func (s *segment) take(vip netip.Addr) (at time.Duration) {
	s.t.Helper()
	s.near.Add("eth0", netip.PrefixFrom(vip, vip.BitLen()).String())
	at = bootNow()
	if err := s.announcer.Announce(vip, "eth0"); err != nil {
		s.t.Fatal(err)
	}
	s.announcer.Start(vip, "eth0")
	s.watch.Hold(vip, false)
	return at
}

func (s *segment) await(what string, good func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !good(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("waited in vain for %s: proofs %+v, rivals %+v, %+v", what, s.proofs, s.rivals, s.watch.Stats())
		}
	}
}

// state returns the newest proof told of a VIP.
func (s *segment) state(vip netip.Addr) (last Proof) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.proofs {
		if p.VIP == vip {
			last = p
		}
	}
	return last
}

// proven waits for the proof and returns when it came.
func (s *segment) proven(vip netip.Addr) time.Duration {
	s.t.Helper()
	s.await("proof of "+vip.String(), func() bool { return s.state(vip).State == RouterProven })
	return s.state(vip).At
}

// router is the test's own router, with a table and habits.
type router struct {
	conn *packet.Conn
	ip   [2]netip.Addr

	mu       sync.Mutex
	mac      hardwareAddr // its own
	speaks   hardwareAddr // the MAC that sends its answers to pings; mostly mac
	table    map[netip.Addr]hardwareAddr
	request  bool // learns from announcements in the request form, and advertisements
	reply    bool // and in the reply form
	unicast  bool // learns from questions sent to it alone
	pings    bool // answers pings
	down     bool
	arpEvery time.Duration // reads one ARP packet in that time, and no other
	arpLast  time.Time
	arps     int // heard, of all kinds
	pinged   int
}

func startRouter(t testing.TB, n *nstest.Namespace) *router {
	r := &router{ip: [2]netip.Addr{gatewayAddr, gateway6}, mac: routerMAC, speaks: routerMAC,
		table: map[netip.Addr]hardwareAddr{}, request: true, reply: true, unicast: true, pings: true}
	n.Sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
	n.Do(func() {
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			r.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		}
		if err == nil {
			err = r.conn.SetPromiscuous(true)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 2048)
		for {
			n, _, err := r.conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			r.take(buffer[:n])
		}
	}()
	t.Cleanup(func() { r.conn.Close(); <-done })
	return r
}

// set changes habits or table.
func (r *router) set(change func(r *router)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *router) points(ip netip.Addr) hardwareAddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table[ip]
}

func (r *router) write(f []byte) {
	_, _ = r.conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
}

func (r *router) take(f []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to, from := hardwareAddr(f[:6]), hardwareAddr(f[6:12])
	if from == r.mac || from == r.speaks || to != r.mac && to[0]&1 == 0 {
		return
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case unix.ETH_P_ARP:
		r.arp(to, f)
	case unix.ETH_P_IP, unix.ETH_P_IPV6:
		if r.nd(to, f) {
			return
		}
		r.ping(f)
	}
}

func (r *router) deaf() bool {
	r.arps++
	if r.down {
		return true
	}
	if r.arpEvery > 0 {
		if time.Since(r.arpLast) < r.arpEvery {
			return true
		}
		r.arpLast = time.Now()
	}
	return false
}

func (r *router) arp(to hardwareAddr, f []byte) {
	if r.deaf() {
		return
	}
	operation, target := f[21], netip.AddrFrom4([4]byte(f[38:42]))
	ip, _, mac, ok := arpClaim(f[ethernetHeader:])
	r.learn(to, ip, mac, ok, operation == operationReply)
	if operation == operationRequest && target == r.ip[0] {
		answer := arpFrame(operationReply, mac, r.mac, target, mac, ip)
		r.write(answer[:])
	}
}

func (r *router) learn(to hardwareAddr, ip netip.Addr, mac hardwareAddr, ok, reply bool) {
	_, known := r.table[ip]
	takes := r.request
	switch {
	case to == r.mac && reply && !known, ip == nodeAddr, ip == node6:
		takes = true // what it asked for, and hosts that it has no reason to distrust
	case to == r.mac:
		takes = r.unicast
	case reply:
		takes = r.reply
	}
	if ok && takes {
		r.table[ip] = mac
	}
}

func (r *router) nd(to hardwareAddr, f []byte) bool {
	ip, _, mac, ok := ndClaim(f[ethernetHeader:])
	_, _, body, is := icmpOf(f[ethernetHeader:])
	if !is || !isND(body[0]) {
		return false
	}
	if r.deaf() {
		return true
	}
	advert := body[0] == byte(ipv6.ICMPTypeNeighborAdvertisement)
	r.learn(to, ip, mac, ok, false)
	if !advert && netip.AddrFrom16([16]byte(body[8:24])) == r.ip[1] {
		answer, err := advertisement(r.mac, r.ip[1])
		if err == nil {
			r.write(answer)
		}
	}
	return true
}

func (r *router) ping(f []byte) {
	from, to, body, ok := icmpOf(f[ethernetHeader:])
	v6 := from.Is6()
	if !ok || to != r.ip[0] && to != r.ip[1] || body[0] != byte(ipv4.ICMPTypeEcho) && !v6 || v6 && body[0] != byte(ipv6.ICMPTypeEchoRequest) {
		return
	}
	r.pinged++
	if r.down || !r.pings {
		return
	}
	mac, known := r.table[from]
	if !known {
		r.who(from)
		return
	}
	message, pseudo := icmp.Message{Type: ipv4.ICMPTypeEchoReply}, []byte(nil)
	if v6 {
		message.Type, pseudo = ipv6.ICMPTypeEchoReply, icmp.IPv6PseudoHeader(to.AsSlice(), from.AsSlice())
	}
	message.Body = &icmp.RawBody{Data: body[4:]}
	if answer, err := message.Marshal(pseudo); err == nil {
		r.write(packetFrame(r.speaks, mac, to, from, answer))
	}
}

// who asks who has an address, as a router does before it answers somebody it does not
// know.
func (r *router) who(ip netip.Addr) {
	if ip.Is6() {
		if q, err := solicitation(r.mac, r.ip[1], nil, ip); err == nil {
			r.write(q)
		}
		return
	}
	q := question(broadcast, r.mac, r.ip[0], ip)
	r.write(q[:])
}
