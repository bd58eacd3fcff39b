package arp

import (
	"net"
	"net/netip"
	"time"
)

// A Gateway is what a Watch knows of the router behind an interface.
type Gateway struct {
	Interface string
	Address   netip.Addr       // the zero Addr: no gateway, or none known
	MAC       net.HardwareAddr // nil: it has answered no ARP or ND question yet
	Answers   bool             // it has answered a ping of ours since the agent started
	Answered  time.Duration    // when the last answered ping was sent, boot clock
	State     GatewayState
}

// GatewayState says whether a gateway answers this node itself, with or without a VIP.
type GatewayState uint8

// The states of a gateway. GatewayAnswers: it left at most one ping unanswered.
// GatewaySilent: for SilentAfter it answered neither pings nor the question for its MAC,
// although it was asked often. GatewayUnknown: it has never answered a ping, or is
// between the other two. A gateway that limits pings, or ARP, is not silent.
const (
	GatewayUnknown GatewayState = iota
	GatewayAnswers
	GatewaySilent
)

// SilentAfter is how long a gateway must have answered nothing to count as silent. It
// comes to be in doubt (GatewayUnknown) much sooner. So when a gateway dies, every node
// doubts it before any node calls it silent.
const SilentAfter = 3 * time.Second

type gatewayKey struct {
	ifname     string
	ipv6       bool
	configured netip.Addr
}

// gateway is kept known for VIPs that are not held too: a proof that first had to find
// the gateway would prove nothing.
type gateway struct {
	key      gatewayKey
	hop      netip.Addr // the gateway's address
	own      netip.Addr // our address to ask from; invalid: the interface has only VIPs
	index    int        // of the interface, as last seen
	mac      hardwareAddr
	resolved bool
	voices   [3]hardwareAddr // MACs that answered our own address; a redundant router may speak with another MAC than g.mac
	heard    time.Duration   // when the last answered ping was sent; 0: never
	silent   int             // pings from our own address since the last answered one
	mute     int             // questions for its MAC since it last answered one
	lastWord time.Duration   // when it last answered anything
	state    GatewayState    // as last told

	lookAt    time.Duration // when to read the route and our own address
	resolveAt time.Duration
	pingAt    time.Duration
	urgent    time.Duration // since when a proof waits for the gateway; 0: none waits
	askers    []*watched    // the VIPs that AskGateway wants a ping for
}

const (
	gatewayIdle   = 10 * time.Second       // between looks, questions and pings while all is well
	gatewayUrgent = 250 * time.Millisecond // the same while a proof waits, or a ping is unanswered
	gatewayPulse  = time.Second            // between pings of a gateway that answers: is our link alive?
	gatewayGiveUp = 30 * time.Second       // with a gateway that has never answered: then haste is no use
	gatewayTries  = 10                     // tries to hear of a gateway at all while no proof waits for it
	silentMost    = 2                      // questions or pings that may go unanswered by chance
	gatewayDoubt  = 100 * time.Millisecond // between pings of a gateway that answered until now
	silentLeast   = 20                     // unanswered pings until a gateway is silent: losing a fifth of all frames is not silence
)

func (g *gateway) public() Gateway {
	p := Gateway{Interface: g.key.ifname, Address: g.hop, Answers: g.heard != 0, Answered: g.heard, State: g.state}
	if g.resolved {
		p.MAC = net.HardwareAddr(append([]byte(nil), g.mac[:]...))
	}
	return p
}

// pause returns the time between two questions or pings.
func (g *gateway) pause(now time.Duration) time.Duration {
	switch {
	case g.heard == 0 && g.silent+g.mute < gatewayTries:
		return min(gatewayIdle/10, g.haste())
	case g.heard == 0 && (g.urgent == 0 || now-g.urgent > gatewayGiveUp):
		return gatewayIdle
	}
	return g.haste()
}

func (g *gateway) haste() time.Duration {
	if g.silent > 1 && g.heard != 0 && g.state != GatewaySilent {
		return gatewayDoubt
	}
	if g.urgent != 0 || g.silent > 0 && g.heard != 0 {
		return gatewayUrgent
	}
	return gatewayIdle
}

// judge sets the state and reports a change. An agent without processor time may have
// unread answers, which do not count; but such an agent has sent no pings either.
func (g *gateway) judge(w *Watch, now time.Duration) {
	state := GatewayUnknown
	switch {
	case g.heard == 0, !g.own.IsValid():
	case g.silent <= 1:
		state = GatewayAnswers
	case g.silent >= silentLeast && g.mute >= silentMost && now-g.lastWord >= SilentAfter:
		state = GatewaySilent
	}
	if state == g.state {
		return
	}
	g.state = state
	for vip, v := range w.vips {
		if v.gw == g {
			w.tellGateway(vip, state)
		}
	}
}

func (w *Watch) tellGateway(vip netip.Addr, state GatewayState) {
	if w.o.OnGateway != nil {
		w.told = append(w.told, func() { w.o.OnGateway(vip, state) })
	}
}

// tick reads the routes, asks for the MAC and pings, each when it is due. It returns when
// the next of these is due.
func (g *gateway) tick(w *Watch, now time.Duration) (next time.Duration) {
	g.judge(w, now)
	if now >= g.lookAt {
		g.look(w, now)
	}
	if !g.hop.IsValid() {
		return g.lookAt
	}
	if now >= g.resolveAt {
		g.find(w, now)
	}
	next = min(g.lookAt, g.resolveAt)
	if !g.resolved || !g.own.IsValid() {
		return next
	}
	if now >= g.pingAt {
		w.ping(now, g, nil)
		if g.silent++; g.silent == silentMost+1 {
			g.resolveAt = min(g.resolveAt, now+gatewayUrgent)
		}
		g.pingAt = now + g.pause(now) // an answer moves this later
	}
	return min(next, g.resolveAt, g.pingAt)
}

// look reads from the kernel which gateway there is, and from which address we can ask
// it.
func (g *gateway) look(w *Watch, now time.Duration) {
	g.lookAt = now + gatewayIdle
	w.readOwn(now)
	hop := g.key.configured
	if !hop.IsValid() {
		found, err := w.routes.NextHop(g.key.ifname, g.key.ipv6)
		if err != nil || !found.IsValid() {
			return // keep what was known: the route may come back
		}
		hop = found
	}
	if hop != g.hop {
		*g = gateway{key: g.key, hop: hop, lookAt: g.lookAt, urgent: g.urgent, state: g.state, askers: g.askers}
		w.poke()
	}
	own, err := w.routes.OwnAddress(g.key.ifname, hop, func(a netip.Addr) bool { return w.vips[a] != nil })
	if err == nil {
		g.own = own
	}
	if !g.own.IsValid() {
		g.lookAt = now + gatewayIdle/10 // the interface may just have come up: its address may still come
	}
}

// find asks for the gateway's MAC. While that MAC is known and answers come, the question
// goes to it alone, to spare the segment. Without an own address an IPv4 question is sent
// from 0.0.0.0.
func (g *gateway) find(w *Watch, now time.Duration) {
	from := g.own
	if !from.IsValid() && g.hop.Is4() {
		from = netip.IPv4Unspecified()
	}
	if from.IsValid() && w.ask(g, from, g.resolved && g.mute <= silentMost && g.silent <= silentMost, urgentFrames) {
		g.mute++
	}
	g.resolveAt = now + g.pause(now)
	if g.resolved {
		g.resolveAt = max(g.resolveAt, now+4*gatewayUrgent)
	}
}

// gatewayState returns the state last told for a VIP's gateway, GatewayUnknown for a VIP
// that was not watched.
func (v *watched) gatewayState() GatewayState {
	if v == nil {
		return GatewayUnknown
	}
	return v.gw.state
}

// resolve takes what the gateway says of its MAC.
func (g *gateway) resolve(w *Watch, now time.Duration, mac hardwareAddr) {
	g.mute, g.lastWord = 0, now
	if g.resolved && g.mac == mac {
		return
	}
	g.mac, g.resolved = mac, true
	g.voices = [len(g.voices)]hardwareAddr{}
	g.pingAt = now
	w.hurry(g, now)
}

// answer takes an answer to a ping from our own address.
func (g *gateway) answer(w *Watch, now, sent time.Duration, from hardwareAddr) {
	if !g.voice(from) {
		copy(g.voices[1:], g.voices[:len(g.voices)-1])
		g.voices[0] = from
	}
	back := g.heard == 0 || g.silent > silentMost
	g.heard, g.silent, g.lastWord = max(g.heard, sent), 0, now
	g.pingAt = now + min(g.pause(now), gatewayPulse)
	g.judge(w, now)
	if back {
		w.hurry(g, now)
	}
}

// voice reports whether a frame with this sender comes from the gateway: from its own
// MAC, or from one that brought an answer to our own address.
func (g *gateway) voice(mac hardwareAddr) bool {
	if g.resolved && g.mac == mac {
		return true
	}
	for _, v := range g.voices {
		if v == mac && v != (hardwareAddr{}) {
			return true
		}
	}
	return false
}

// hurry makes the proofs that wait for g go on at once, because g can answer again.
func (w *Watch) hurry(g *gateway, now time.Duration) {
	for _, v := range w.vips {
		if v.gw == g && v.held && v.proving {
			v.nextPing, v.nextAsk, v.askPause = now, now+askFirst, askFirst
			v.judge(w, now)
		}
	}
	w.poke()
}
