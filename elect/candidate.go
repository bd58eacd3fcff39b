package elect

import "time"

// candidacies lets this node ask for what nobody holds, in the order of the
// placement (§4.4, §4.8).
func (m *Machine) candidacies() {
	var plan placement
	for _, v := range m.vips {
		if v.phase != idle && v.phase != prevoting && v.phase != asking || v.Lock && !v.lock.wanted {
			continue
		}
		if v.phase != idle {
			m.pursue(v)
			continue
		}
		at, vacant := m.vacantSince(v)
		if !vacant || !m.mayStand() || m.waits(v) {
			continue
		}
		if v.Lock {
			m.standForLock(v, at)
			continue
		}
		if plan == nil {
			plan = m.placeVacant()
		}
		m.stand(v, at, plan)
	}
}

// vacantSince is since when nobody has held the VIP as far as this node may judge, and
// whether nobody holds it. The node judges by its own grant, or by claims if it has no
// grant to judge by (§4.4).
func (m *Machine) vacantSince(v *vip) (Instant, bool) {
	if v.claim.by != nil || v.phase == holding || v.phase == unbinding {
		return 0, false
	}
	at := v.freeSince
	if g := v.grant; g != nil && m.votes() {
		if g.until > m.now {
			m.due(g.until)
			if g.Holder != m.self.Name || g.Instance != m.instance {
				return 0, false
			}
		} else {
			at = max(at, g.until)
		}
	}
	if !m.votes() || m.now < m.quietUntil {
		// This node cannot know whether there is a holder that it has not heard yet.
		at = max(at, m.started.Add(m.cfg.Lease))
	}
	if at > m.now {
		m.due(at)
		return 0, false
	}
	return at, true
}

func (m *Machine) mayStand() bool { return !m.stopping && m.lists.Active != nil && m.quorum }

// waits reports whether this node, whatever its rank, does not ask yet. It comes before
// the placement, which would cost too much in every step with many VIPs.
func (m *Machine) waits(v *vip) bool {
	until := max(v.backoffUntil, v.retryAt)
	m.due(until)
	return until > m.now
}

// stand starts a candidacy when this node's turn has come.
func (m *Machine) stand(v *vip, at Instant, plan placement) {
	rank := plan.rank(v, m.self)
	if rank < 0 {
		return
	}
	why := plan[v.index][rank].why
	turn := max(at, m.quorumSince, m.survivorHeardBy()).Add(time.Duration(rank) * m.cfg.Stagger)
	if !v.seenHeld && m.waitsForPreferred(v, why) {
		turn = max(turn, max(m.firstQuorum, v.added).Add(m.cfg.Settle))
	}
	if m.handed(v) {
		turn = at
	} else {
		turn = max(turn, v.retryAt.Add(time.Duration(rank)*m.cfg.Stagger))
	}
	if turn > m.now {
		m.due(turn)
		return
	}
	m.startPrevote(v, at, why)
}

// handed reports whether voters hold grants for this node that it can use only by asking:
// a release named it, but its ready was too old or packets were lost. Nobody else can
// take the VIP now.
func (m *Machine) handed(v *vip) bool {
	g := v.grant
	return g != nil && g.Holder == m.self.Name && g.Instance == m.instance && m.now < g.until ||
		!m.votes() && v.passing == m.self.Name
}

// waitsForPreferred reports whether this node, at a cold start, lets a preferred node go
// first: the first in the VIP's prefer, or a spare for a role that prefers one (§4.8).
func (m *Machine) waitsForPreferred(v *vip, why Why) bool {
	if v.PreferSpare {
		return why != WhySparePrefer
	}
	return len(v.Prefer) > 0 && v.Prefer[0] != m.self.Name
}

func (m *Machine) startPrevote(v *vip, vacant Instant, why Why) {
	v.phase, v.epoch, v.why = prevoting, v.top()+1, why
	v.first = v.epoch
	v.voidVotes()
	v.newRound(m.now)
	v.lastSend, v.retryAt = m.now.Add(-m.pace()), 0
	if v.noticed == 0 || v.noticed > m.now {
		v.noticed = vacant
	}
	v.freeSince = vacant
	m.pursue(v)
}

// pursue repeats the question to the voters that have not answered, and gives up when
// half a lease has brought no majority.
func (m *Machine) pursue(v *vip) {
	end := v.round.Add(m.cfg.Lease / 2)
	if m.now >= end || m.stopping {
		m.drop(v)
		v.backoffUntil = m.now.Add(m.backoff())
		m.due(v.backoffUntil)
		return
	}
	m.due(end)
	m.forgetWaits(v)
	if next := v.lastSend.Add(m.pace()); m.now < next {
		m.due(next)
		return
	}
	m.askAll(v)
}

// standBack ends a candidacy that cannot get a majority now. If it was still a prevote
// and a voter said for how long to wait, this node asks again then; otherwise it backs
// off.
func (m *Machine) standBack(v *vip) {
	wasAsking := v.phase == asking
	retry := v.retryAt
	m.drop(v)
	if retry > m.now && !wasAsking {
		v.retryAt = retry
	} else {
		v.backoffUntil = m.now.Add(m.backoff())
	}
	m.due(max(v.retryAt, v.backoffUntil))
}

func (m *Machine) startAsking(v *vip) {
	v.phase, v.epoch = asking, max(v.epoch, v.top()+1)
	v.first = v.epoch
	m.noteAsked(v)
	v.voidVotes()
	v.newRound(m.now)
	m.askAll(v)
}

// abandon ends a candidacy that has asked for no grant yet: the VIP, or this node's vote,
// is another's.
func (m *Machine) abandon(v *vip) {
	if v.phase == prevoting {
		v.phase = idle
		v.voidVotes()
	}
}

// drop ends a candidacy of either kind.
func (m *Machine) drop(v *vip) {
	if v.phase == asking {
		m.giveUp(v, CauseNone)
		return
	}
	m.abandon(v)
}
