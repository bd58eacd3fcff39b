package elect

import (
	"slices"
	"time"
)

// RouterState says whether the router reaches a VIP at its holder (§5.4).
type RouterState uint8

// The states, as `status --json` spells them (§8). RouterUnknown: the router has never
// answered anything that would tell.
const (
	RouterUnknown RouterState = iota
	RouterUnproven
	RouterProven
)

func (s RouterState) String() string {
	return [...]string{"unknown", "unproven", "proven"}[min(s, RouterProven)]
}

// Router says whether the router reaches a VIP that this node holds. It moves nothing;
// heartbeats tell it to the others.
type Router struct {
	VIP   VIPID
	State RouterState
}

func (Router) event() {}

// GatewayState says whether the router of a VIP's link answers this node itself. This
// node asks the router while it holds the VIP and while it does not.
type GatewayState uint8

// The states. GatewaySilent is certain and GatewayAnswers is fresh; whatever lies between
// is GatewayUnknown. So is a router that has never answered.
const (
	GatewayUnknown GatewayState = iota
	GatewayAnswers
	GatewaySilent
)

// Gateway says whether the router of a VIP's link answers this node.
type Gateway struct {
	VIP   VIPID
	State GatewayState
}

func (Gateway) event() {}

// reachedFor is how long another node must have reached a router that is silent here
// before that counts. A router that comes back answers some nodes before others, and one
// that dies falls silent to some before others: neither may move anything.
const reachedFor = 2 * time.Second

func (m *Machine) onGateway(e Gateway) {
	if v := m.known[e.VIP]; v != nil && v.gateway != e.State {
		v.gateway = e.State
		m.beatNow = true // the others must hear of the doubt before anybody is certain
	}
}

// reached are the VIPs whose router answers this node. Nearly always all of them do;
// where every node runs one file, all says so and ids is empty.
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

// noteReached keeps since when a node has said which routers answer it. The IDs come in
// the order of that node's file, which mostly is ours.
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

// reaches reports whether the router of the VIP's link has answered p for reachedFor.
func (m *Machine) reaches(p *peer, v *vip) bool {
	since := v.reached[p.index]
	if p == m.self || !p.alive || since == 0 {
		return false
	}
	m.due(since.Add(reachedFor))
	return m.now >= since.Add(reachedFor)
}

// cutOff reports whether the router of the VIP's link is silent here but answers another
// node. Then this node's link is dead, whatever its carrier says (§4.7).
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
