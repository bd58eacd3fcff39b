package elect

import (
	"slices"
	"time"
)

// RouterState says whether the router reaches a VIP at its holder (§5.4).
type RouterState uint8

// The states, as `status --json` spells them (§8). Unknown: the router has never
// answered anything that would tell.
const (
	RouterUnknown RouterState = iota
	RouterUnproven
	RouterProven
)

func (s RouterState) String() string {
	return [...]string{"unknown", "unproven", "proven"}[min(s, RouterProven)]
}

// Router is the network's word about a VIP that this node holds. It moves
// nothing: the heartbeat tells it to the others.
type Router struct {
	VIP   VIPID
	State RouterState
}

func (Router) event() {}

// GatewayState says whether the router of a VIP's link answers this node itself,
// which asks it whether it holds the VIP or not.
type GatewayState uint8

// The states. Unknown lies between the others too: silent is certain, and
// answers is fresh. A router that has never answered is unknown.
const (
	GatewayUnknown GatewayState = iota
	GatewayAnswers
	GatewaySilent
)

// Gateway is the network's word about the link of a VIP.
type Gateway struct {
	VIP   VIPID
	State GatewayState
}

func (Gateway) event() {}

// reachedFor is how long a node must have reached the router that is silent
// here: one that comes back answers some nodes before others, and nothing moves
// for that, nor for one that dies.
const reachedFor = 2 * time.Second

func (m *Machine) onGateway(e Gateway) {
	if v := m.known[e.VIP]; v != nil && v.gateway != e.State {
		v.gateway = e.State
		m.beatNow = true // doubt must be heard before anybody is certain
	}
}

// reached are the VIPs whose router answers this node: all that are configured,
// nearly always, and where every node runs one file that need not be spelled out.
func (m *Machine) reached() (ids []VIPID, all bool) {
	silent := false
	for _, v := range m.vips {
		silent = silent || !v.Role && v.gateway != GatewayAnswers
	}
	if !silent && m.agreed() {
		return nil, true
	}
	for _, v := range m.vips {
		if v.gateway == GatewayAnswers {
			ids = append(ids, v.ID)
		}
	}
	return ids, false
}

// noteReached keeps since when a node has said of which routers that they
// answer it. What it names comes in the order of its file, which mostly is ours.
func (m *Machine) noteReached(p *peer, all bool, ids []VIPID) {
	for _, v := range m.vips {
		reached := all && !v.Role
		if len(ids) > 0 && ids[0] == v.ID {
			reached, ids = true, ids[1:]
		} else if !reached {
			reached = slices.Contains(ids, v.ID)
		}
		switch since := &v.reached[p.index]; {
		case !reached:
			*since = 0
		case *since == 0:
			*since = m.now
		}
	}
}

// reaches: the router answers a node on the VIP's link, and has for a while.
func (m *Machine) reaches(p *peer, v *vip) bool {
	since := v.reached[p.index]
	if p == m.self || !p.alive || since == 0 {
		return false
	}
	m.due(since.Add(reachedFor))
	return m.now >= since.Add(reachedFor)
}

// cutOff: the router is silent on the VIP's link here and answers another node,
// so it is our link that is dead, whatever its carrier says (§4.7).
func (m *Machine) cutOff(v *vip) bool {
	return v.gateway == GatewaySilent && slices.ContainsFunc(m.peers, func(p *peer) bool { return m.reaches(p, v) })
}

func (m *Machine) onRouter(e Router) {
	v := m.known[e.VIP]
	if v == nil || v.phase != holding || v.router == e.State {
		return
	}
	v.router = e.State
	m.beatNow = true
}
