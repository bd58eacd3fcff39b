package arp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sipalive/platform"
)

// A Link is a VIP and the interface it belongs on.
type Link struct {
	VIP       netip.Addr
	Interface string
	Gateway   netip.Addr // the router asked for proof; the zero Addr: the next hop of the default route there
	Silent    bool       // never announced, never the sender of an ARP or ND question: a provider's API moves it
}

// WatchOptions are the options of a Watch. Callbacks come one at a time, in order, on the
// Watch's own goroutines or on that of a caller of Hold or LetGo. A callback may wait, but
// not for a caller of Hold or LetGo: the next callback, and the goroutine that makes it,
// wait for this one.
type WatchOptions struct {
	Links     []Link
	Peers     map[netip.Addr]string // the nodes' own addresses and names, to name a rival
	Announcer *Announcer
	Relay     RelayLink
	Refresh   time.Duration        // time between two proofs of a proven VIP
	Now       func() time.Duration // the boot clock
	Alarms    *platform.Alarms     // on that clock

	OnRouter   func(Proof)
	OnRival    func(Rival)
	OnEvidence func(Evidence)
	OnSign     func(Sign)
	// OnGateway is told of every VIP, held or not, whether its gateway answers this node.
	// It is told each change; at OpenWatch the state is GatewayUnknown.
	OnGateway func(netip.Addr, GatewayState)
}

// WatchStats are counters since OpenWatch.
type WatchStats struct {
	Pings    uint64 // sent from VIPs and, to know the gateway, from our own addresses
	Answers  uint64 // answers that counted
	Detours  uint64 // answers to a VIP's ping from a MAC that is not the gateway's: no proof
	Asked    uint64 // unicast questions and announcements to a gateway in the VIP's name
	Claims   uint64 // claims of a VIP we hold, by others
	Defences uint64 // announcements because of such claims
	Owners   uint64 // questions who has a VIP

	Relayed, RelayErrors uint64 // datagrams for other nodes: sent, not sent
}

// A Watch asks the router whether a takeover has reached it, and watches for other
// machines that claim a VIP held here (design §5.4). OpenWatch opens its sockets in the
// network namespace of the caller; Run does the work. Its methods may be called from any
// goroutine and never wait for the network.
type Watch struct {
	o        WatchOptions
	routes   *platform.Routes
	listener *listener
	socket   *socket
	id       uint16
	wake     chan struct{}
	patience time.Duration

	mu       sync.Mutex
	gateways map[gatewayKey]*gateway
	vips     map[netip.Addr]*watched
	own      map[hardwareAddr]bool // MAC addresses of this machine
	ownAt    time.Duration
	peerMACs map[hardwareAddr]netip.Addr
	pings    [1024]ping // by sequence number
	seq      uint16
	stats    WatchStats
	told     []func() // callbacks due, in order
	telling  sync.Mutex

	askMu sync.Mutex // guards asked, so that the loop never waits for mu
	asked []asking

	via                  atomic.Pointer[via]
	relayed, relayErrors atomic.Uint64
	datagram             atomic.Uint32
}

// ping is a ping that may still be answered.
type ping struct {
	echo
	vip    *watched // nil: from our own address, to know the gateway
	gw     *gateway
	from   netip.Addr
	sent   time.Duration
	askers []*watched // VIPs for which an answer is Evidence
}

// OpenWatch opens a Watch. It needs CAP_NET_RAW.
func OpenWatch(o WatchOptions) (w *Watch, err error) {
	w = &Watch{o: o, id: uint16(rand.Uint32()), wake: make(chan struct{}, 1), patience: Patience, gateways: map[gatewayKey]*gateway{},
		vips: map[netip.Addr]*watched{}, own: map[hardwareAddr]bool{}, peerMACs: map[hardwareAddr]netip.Addr{}}
	if w.routes, err = platform.OpenRoutes(); err != nil {
		return nil, err
	}
	if w.listener, err = openListener(w.id); err == nil {
		w.socket, err = openSocket()
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("watch the network: %w", explain(err))
	}
	w.take(o.Links, o.Relay)
	return w, nil
}

// Configure replaces links, relay, peers and refresh after a reload. An unchanged link
// keeps its state. A held VIP whose interface or gateway changed begins its proof again.
func (w *Watch) Configure(links []Link, relay RelayLink, peers map[netip.Addr]string, refresh time.Duration) {
	defer w.poke() // Run's goroutine makes the callbacks: the caller may be the one who receives them
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.Peers, w.o.Refresh = peers, refresh
	clear(w.peerMACs)
	before := w.vips
	w.take(links, relay)
	w.publish()
	for vip, v := range w.vips {
		old := before[vip]
		if old != nil && old != v && old.held {
			v.hold(w, w.o.Now(), old.alone)
		}
		if state := v.gw.state; state != old.gatewayState() {
			w.tellGateway(vip, state)
		}
	}
}

func (w *Watch) take(links []Link, relay RelayLink) {
	vips, gateways := map[netip.Addr]*watched{}, map[gatewayKey]*gateway{}
	know := func(key gatewayKey) {
		switch {
		case gateways[key] != nil:
		case w.gateways[key] != nil:
			gateways[key] = w.gateways[key]
		default:
			gateways[key] = &gateway{key: key}
		}
	}
	if w.o.Relay = relay; relay.Interface != "" {
		know(relay.key())
	}
	for _, l := range links {
		l.Gateway = l.Gateway.WithZone("")
		key := gatewayKey{l.Interface, l.VIP.Is6(), l.Gateway}
		know(key)
		if vips[l.VIP] = w.vips[l.VIP]; vips[l.VIP] == nil || vips[l.VIP].Link != l {
			vips[l.VIP] = &watched{Link: l, gw: gateways[key]}
		}
	}
	w.vips, w.gateways = vips, gateways
}

// Close closes the sockets, which ends Run.
func (w *Watch) Close() {
	if w.listener != nil {
		w.listener.close()
	}
	if w.socket != nil {
		_ = w.socket.close()
	}
	w.routes.Close()
}

// Run listens, asks and calls back until ctx ends, and then closes the Watch.
func (w *Watch) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	failed := make(chan error, len(w.listener.sockets))
	for _, s := range w.listener.sockets {
		readers.Go(func() { failed <- s.run(w.hear) })
	}
	defer readers.Wait()
	defer w.Close()
	alarm := w.o.Alarms.New(w.poke)
	defer alarm.Stop()
	w.poke()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-w.wake:
		}
		alarm.Set(int64(w.tick()))
	}
}

// Hold begins the proof of a VIP that was just bound and announced, and the watch for its
// rivals. If the VIP is already held, it begins the proof again and reads routes and
// addresses again: call it so after a link came up or an address was put back. If alone,
// without a majority (design §4.6), the Watch on its own sends nothing but pings in the
// VIP's name: it neither tells the router nor fights a rival.
func (w *Watch) Hold(vip netip.Addr, alone bool) {
	w.locked(func(now time.Duration) {
		if v := w.vips[vip]; v != nil {
			v.hold(w, now, alone)
		}
	})
	w.poke()
}

// LetGo ends the proof and the watch for rivals. Once it has returned, no frame leaves in
// the VIP's name any more: call it before unbinding.
func (w *Watch) LetGo(vip netip.Addr) {
	w.locked(func(time.Duration) {
		if v := w.vips[vip]; v != nil {
			v.held, v.state, v.unproven, v.rival = false, RouterUnknown, 0, claims{}
			w.calm(v.gw)
		}
	})
}

// Gateway returns what is known of a VIP's router, whether the VIP is held or not.
func (w *Watch) Gateway(vip netip.Addr) Gateway {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.vips[vip]
	if v == nil {
		return Gateway{}
	}
	return v.gw.public()
}

func (w *Watch) Stats() WatchStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Relayed, s.RelayErrors = w.relayed.Load(), w.relayErrors.Load()
	return s
}

func (w *Watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// locked runs f under the lock and then, without the lock, the callbacks that are due.
func (w *Watch) locked(f func(now time.Duration)) {
	w.mu.Lock()
	f(w.o.Now())
	w.publish()
	due := len(w.told) > 0
	w.mu.Unlock()
	if due {
		w.tell()
	}
}

func (w *Watch) tell() {
	w.telling.Lock()
	defer w.telling.Unlock()
	w.mu.Lock()
	told := w.told
	w.told = nil
	w.mu.Unlock()
	for _, f := range told {
		f()
	}
}

// tick does what is due and returns when it is due again.
func (w *Watch) tick() (next time.Duration) {
	w.locked(func(now time.Duration) {
		next = now + time.Minute
		w.askTick(now)
		for _, v := range w.vips {
			if v.held {
				next = min(next, v.rivalTick(w, now), v.tick(w, now))
			}
		}
		for _, g := range w.gateways { // after the proofs: they may have made the gateway's work due
			next = min(next, g.tick(w, now))
		}
	})
	return next
}

// hear takes a packet from a socket.
func (w *Watch) hear(h heard) {
	w.locked(func(now time.Duration) {
		if h.claim {
			w.hearClaim(now, h)
		} else {
			w.hearAnswer(now, h)
		}
	})
}

func (w *Watch) hearClaim(now time.Duration, h heard) {
	w.hearSign(now, h)
	if v := w.vips[h.ip]; v != nil {
		v.claimed(w, now, h)
		return
	}
	if name := w.o.Peers[h.ip]; name != "" {
		if len(w.peerMACs) > 4*len(w.o.Peers) { // somebody plays with our addresses
			clear(w.peerMACs)
		}
		w.peerMACs[h.mac] = h.ip
	}
	for _, g := range w.gateways {
		if g.hop.IsValid() && g.hop == h.ip && g.index == h.index {
			g.resolve(w, now, h.mac)
		}
	}
}

func (w *Watch) hearAnswer(now time.Duration, h heard) {
	p := &w.pings[h.echo.seq%uint16(len(w.pings))]
	if p.echo != h.echo || p.gw == nil || h.to != p.from || h.ip != p.gw.hop {
		return
	}
	switch {
	case p.vip == nil:
		w.stats.Answers++
		if _, peer := w.peerMACs[h.from]; !peer || p.gw.voice(h.from) {
			p.gw.answer(w, now, p.sent, h.from)
			w.answered(p)
		}
	case !p.vip.held || p.vip.gw.index != h.index:
	case !p.gw.voice(h.from):
		w.stats.Detours++
		p.vip.detour = h.from
		return // the right answer may still come
	default:
		w.stats.Answers++
		p.vip.proven(w, now, p.sent)
		w.answered(p)
	}
	p.gw = nil
}

// ping sends a ping to a gateway, from a VIP or (v nil) from our own address. The answer
// becomes Evidence for the askers. If the interface is down, ping reports no error: no
// answer will come.
func (w *Watch) ping(now time.Duration, g *gateway, v *watched, askers ...*watched) {
	from := g.own
	if v != nil {
		if from = v.VIP; !w.o.Announcer.may(from) {
			return
		}
	}
	w.seq++
	e := echo{w.id, w.seq, rand.Uint64()}
	sent := w.send(g, func(mac hardwareAddr) ([]byte, error) { return echoRequest(mac, g.mac, from, g.hop, e) })
	if sent {
		w.stats.Pings++
		w.pings[e.seq%uint16(len(w.pings))] = ping{echo: e, vip: v, gw: g, from: from, sent: now, askers: askers}
	}
}

// ask asks the gateway for its own MAC with from as sender, so the gateway learns where
// from is. from is a VIP, or our own address when we want to learn the MAC. unicast needs
// the gateway's MAC to be known.
func (w *Watch) ask(g *gateway, from netip.Addr, unicast bool, spare int) bool {
	to := &g.mac
	if !unicast {
		to = nil
	}
	return w.question(g, from, g.hop, to, spare)
}

// question asks who has target on a gateway's link: the MAC to alone, or everybody if to
// is nil. It sends nothing if fewer than spare frames would then be left for more urgent
// ones.
func (w *Watch) question(g *gateway, from, target netip.Addr, to *hardwareAddr, spare int) bool {
	if _, ok := w.o.Announcer.limit.take(g.key.ifname, 1, spare); !ok {
		return false
	}
	return w.send(g, func(mac hardwareAddr) ([]byte, error) {
		if target.Is6() {
			return solicitation(mac, from, to, target)
		}
		if to == nil {
			to = &broadcast
		}
		f := question(*to, mac, from, target)
		return f[:], nil
	})
}

// urgentFrames is how many frames a question that can wait leaves for announcements.
const urgentFrames = 4

func (w *Watch) send(g *gateway, build func(mac hardwareAddr) ([]byte, error)) bool {
	err := w.socket.with(func(fd int) error {
		index, mac, err := look(fd, g.key.ifname)
		if err != nil {
			return err
		}
		g.index = index
		f, err := build(mac)
		if err != nil {
			return err
		}
		return transmit(fd, index, f)
	})
	return err == nil
}

// isOwn reports whether mac belongs to this machine. Before it calls a MAC foreign it
// reads the MACs again, at most once a second.
func (w *Watch) isOwn(now time.Duration, mac hardwareAddr) bool {
	if !w.own[mac] && now-w.ownAt > time.Second {
		w.readOwn(now)
	}
	return w.own[mac]
}

func (w *Watch) readOwn(now time.Duration) {
	all, err := w.routes.HardwareAddresses()
	w.ownAt = now
	if err != nil {
		return
	}
	clear(w.own)
	for _, mac := range all {
		w.own[hardwareAddr(mac)] = true
	}
}

func macText(mac hardwareAddr) string { return net.HardwareAddr(mac[:]).String() }
