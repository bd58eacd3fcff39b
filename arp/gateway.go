package arp

import (
	"net"
	"net/netip"
	"time"
)

// A Gateway is what is known of the router behind an interface.
type Gateway struct {
	Interface string
	Address   netip.Addr       // the zero Addr: there is none, or none known
	MAC       net.HardwareAddr // nil: it has answered no ARP or ND yet
	Answers   bool             // it has answered a ping of ours since the agent started
	Answered  time.Duration    // when the last ping it answered was sent, boot clock
	State     GatewayState
}

// GatewayState says whether a gateway answers this node itself, VIP or not.
type GatewayState uint8

// The states. Unknown lies between the others too. Answers: it left at most one
// ping unanswered. Silent: for SilentAfter it answered neither pings nor the
// question for its MAC, though it was asked often; a gateway that limits pings,
// or ARP, is not silent, and one that has never answered a ping is unknown.
const (
	GatewayUnknown GatewayState = iota
	GatewayAnswers
	GatewaySilent
)

// SilentAfter is how long a gateway must have answered nothing to be silent. Who
// is in doubt is so much sooner: a gateway that dies is in doubt everywhere
// before it is silent anywhere.
const SilentAfter = 3 * time.Second

type gatewayKey struct {
	ifname     string
	ipv6       bool
	configured netip.Addr
}

// gateway is known beforehand, for VIPs that are not held too: a proof that had
// to look for it first would prove nothing.
type gateway struct {
	key      gatewayKey
	hop      netip.Addr // its address
	own      netip.Addr // ours to ask from; invalid: the interface has VIPs alone
	index    int        // of the interface, as last seen
	mac      hardwareAddr
	resolved bool
	voices   [3]hardwareAddr // where answers to our own address came from: a redundant router may speak with another MAC
	heard    time.Duration   // when the last answered ping was sent; 0: never
	silent   int             // pings from our own address unanswered since
	mute     int             // questions for its MAC unanswered since
	lastWord time.Duration   // when it last answered anything
	state    GatewayState    // as told

	lookAt    time.Duration // for route and own address
	resolveAt time.Duration
	pingAt    time.Duration
	urgent    time.Duration // since when a proof waits for it; 0: none does
	askers    []*watched    // who waits for a ping from our own address
}

const (
	gatewayIdle   = 10 * time.Second       // between looks, questions and pings while all is well
	gatewayUrgent = 250 * time.Millisecond // and while a proof waits, or the gateway fell silent
	gatewayPulse  = time.Second            // between pings of one that answers: is our link alive?
	gatewayGiveUp = 30 * time.Second       // with one that has never answered, after which haste is no use
	gatewayTries  = 10                     // to hear of one at all, while nothing waits for it
	silentMost    = 2                      // questions or pings that may go unanswered by chance
	gatewayDoubt  = 100 * time.Millisecond // between pings of one that answered until now
	silentLeast   = 20                     // pings unanswered of one that is silent: a fifth of all frames lost is no silence
)

func (g *gateway) public() Gateway {
	p := Gateway{Interface: g.key.ifname, Address: g.hop, Answers: g.heard != 0, Answered: g.heard, State: g.state}
	if g.resolved {
		p.MAC = net.HardwareAddr(append([]byte(nil), g.mac[:]...))
	}
	return p
}

// pause is between two questions or pings.
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

// judge tells whether it answers, when that is another than before. Answers that
// an agent without processor time has not read yet are none, but then it has not
// asked either.
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

// tick keeps the gateway known.
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
		g.pingAt = now + g.pause(now) // an answer puts it off
	}
	return min(next, g.resolveAt, g.pingAt)
}

// look reads from the kernel which gateway there is and from where it may be
// asked.
func (g *gateway) look(w *Watch, now time.Duration) {
	g.lookAt = now + gatewayIdle
	w.readOwn(now)
	hop := g.key.configured
	if !hop.IsValid() {
		found, err := w.routes.NextHop(g.key.ifname, g.key.ipv6)
		if err != nil || !found.IsValid() {
			return // what was known stays: a route that is gone now may come back
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
		g.lookAt = now + gatewayIdle/10 // an interface that just came up: its address may come
	}
}

// find asks for the gateway's MAC: it alone while it is known, so that the
// segment is left in peace. An IPv4 question may come from nobody.
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

// gatewayState is what was told of a VIP's gateway, nothing of one that was not
// watched.
func (v *watched) gatewayState() GatewayState {
	if v == nil {
		return GatewayUnknown
	}
	return v.gw.state
}

// resolve takes the gateway's word about its MAC.
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

// answer takes an answer to our own address.
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

// voice reports whether a frame with this sender is the gateway's: its own MAC,
// or one that brought an answer to our own address.
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

// hurry has proofs that wait for a gateway go on at once: it can answer again.
func (w *Watch) hurry(g *gateway, now time.Duration) {
	for _, v := range w.vips {
		if v.gw == g && v.held && v.proving {
			v.nextPing, v.nextAsk, v.askPause = now, now+askFirst, askFirst
			v.judge(w, now)
		}
	}
	w.poke()
}
