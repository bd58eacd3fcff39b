package elect

import (
	"fmt"
	"slices"
)

// Status copies what the machine knows.
func (m *Machine) Status() Status {
	s := Status{
		Self: m.self.Name, Quorum: m.quorum, Quiet: m.now < m.quietUntil, QuietEnd: m.quietUntil,
		Lists:   Lists{File: slices.Clone(m.lists.File), Active: slices.Clone(m.lists.Active)},
		Waiting: m.lists.waiting, AllUnfit: m.allUnfit, Drained: m.durable.Drained,
	}
	for _, p := range m.peers {
		s.Nodes = append(s.Nodes, m.nodeStatus(p))
	}
	for _, v := range m.vips {
		if v.Lock {
			continue
		}
		s.VIPs = append(s.VIPs, m.vipStatus(v))
	}
	return s
}

func (m *Machine) nodeStatus(p *peer) NodeStatus {
	n := NodeStatus{
		Name: p.Name, Alive: p.alive, Fit: m.isFit(p) && p.Holder, Unfit: p.unfit, Seen: p.seen, SIP: p.seen,
		Witness: !p.Holder, Drained: m.drained(p), HeldDown: m.heldDown(p) && m.unfit(p) == "", SameConfig: !p.differs, LastHeard: p.lastHeard,
	}
	n.Frozen = m.frozenFor(p)
	for _, o := range m.peers {
		if s := m.verdict(o, p); p.Holder && o.alive && s != SIPUnknown {
			n.Views = append(n.Views, Observation{Node: o.Name, SIP: s})
		}
	}
	if p != m.self && p.alive && p.beat.SIP != SIPUnknown {
		n.SIP = p.beat.SIP
	}
	for _, v := range m.vips {
		if m.holder(v) == p && !v.Lock {
			n.Holds = append(n.Holds, v.ID)
		}
	}
	n.Relay, n.ByRelay = p.relay, p.alive && p.byRelay
	return n
}

func (m *Machine) vipStatus(v *vip) VIPStatus {
	s := VIPStatus{ID: v.ID, Epoch: v.top()}
	switch {
	case v.phase == holding:
		s.Holder, s.Epoch, s.Since, s.State = m.self.Name, v.held, v.since, Held
		s.Cause, s.Why, s.Checked, s.Verified, s.Until = v.cause, v.why, v.checked, v.verified, v.until
		if v.survives() {
			s.State = Surviving
		}
		s.Router = v.router
		if v.moving() {
			s.State = Moving
		}
	case v.claim.by != nil:
		h := v.claim.hold
		s.Holder, s.Epoch, s.Since, s.State = v.claim.by.Name, h.Epoch, v.claim.since, Held
		s.Cause, s.Why, s.Checked, s.Verified = h.Cause, h.Why, h.Checked, h.Verified
		if h.Survivor != 0 {
			s.Epoch, s.State = h.Survivor, Surviving
		}
		s.Router = h.Router
		if h.Moving {
			s.State = Moving
		}
	default:
		s.Since, s.Reason = v.freeSince, m.whyVacant(v)
		if v.passing != "" {
			s.State = Moving
		}
		return s
	}
	s.Reason = fmt.Sprintf("%s: %s", s.Holder, s.Why)
	return s
}

// Vote is this voter's grant for a VIP, and the grant's end, which may be past. ok is
// false if there is none. A VIP that has left the configuration keeps its grant.
func (m *Machine) Vote(id VIPID) (g Grant, until Instant, ok bool) {
	given := m.strangers[id].Grant
	if v := find(m.everyVIP(), id); v != nil {
		given = v.grant
	}
	if given == nil {
		return Grant{}, 0, false
	}
	return *given, given.until, true
}

// Lists are this node's voter lists as they are now.
func (m *Machine) Lists() Lists { return m.lists.Lists }
