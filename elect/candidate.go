package elect

import "time"

// candidacies lets this node ask for what nobody holds, in the order of the
// placement (§4.4, §4.8).
func (m *Machine) candidacies() {
	var plan placement
	for _, v := range m.vips {
		if v.phase != idle && v.phase != prevoting && v.phase != asking {
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
		if plan == nil {
			plan = m.placeVacant()
		}
		m.stand(v, at, plan)
	}
}

// vacantSince is when nobody held the VIP any more as far as this node may
// judge: by its own grant, or, having none to judge by, by claims (§4.4).
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
		// It cannot know whether a holder lives that it has not heard yet.
		at = max(at, m.started.Add(m.cfg.Lease))
	}
	if at > m.now {
		m.due(at)
		return 0, false
	}
	return at, true
}

func (m *Machine) mayStand() bool { return !m.stopping && m.lists.Active != nil && m.quorum }

// waits: whatever its rank, this node does not ask yet. It spares the placement
// of many VIPs in every step.
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
		turn = max(turn, m.firstQuorum.Add(m.cfg.Settle))
	}
	if m.handed(v) {
		turn = at
	} else {
		turn = max(turn, v.backoffUntil, v.retryAt.Add(time.Duration(rank)*m.cfg.Stagger))
	}
	if turn > m.now {
		m.due(turn)
		return
	}
	m.startPrevote(v, at, why)
}

// handed reports whether voters hold grants for this node that it cannot use
// without asking: a release named it, and its ready was too old or words were
// lost. Nobody else can take the VIP now.
func (m *Machine) handed(v *vip) bool {
	g := v.grant
	return g != nil && g.Holder == m.self.Name && g.Instance == m.instance && m.now < g.until ||
		!m.votes() && v.passing == m.self.Name
}

// waitsForPreferred: at a cold start a VIP waits for the first in its prefer,
// and a role that prefers the spare for one, before another takes it (§4.8).
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

// pursue repeats the question to those who have not answered, and gives up
// when half a lease brought no majority.
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

// forgetWaits asks a voter again whose refusal said for how long, once that has
// passed: our own grant ended a moment before its, and with the old holder
// silent every other vote is needed.
func (m *Machine) forgetWaits(v *vip) {
	switch {
	case v.retryAt == 0:
		return
	case m.now < v.retryAt:
		m.due(v.retryAt)
		return
	}
	v.retryAt = 0
	for _, p := range m.peers {
		if r := v.votes[p.index].refused; r == RefusedHeld || r == RefusedQuiet {
			v.rounds[p.index] = false
			v.lastSend = m.now.Add(-m.pace())
		}
	}
}

// askAll asks every voter of the active list that has not answered, this
// node's own first.
func (m *Machine) askAll(v *vip) {
	v.lastSend = m.now
	it := AskItem{VIP: v.ID, Epoch: v.epoch, Holding: v.phase == holding && !v.survives()}
	if m.lists.Active.Has(m.self.Name) && !v.rounds[m.self.index] {
		m.askSelf(v, it)
	}
	if v.phase == idle {
		return // our own voter refused for good
	}
	kind := 0
	if v.phase == prevoting {
		kind = 1
	}
	it.Epoch = v.epoch
	for _, p := range m.peers {
		if p != m.self && m.lists.Active.Has(p.Name) && !v.rounds[p.index] {
			m.askItem[kind][p.index] = append(m.askItem[kind][p.index], it)
		}
	}
	m.due(m.now.Add(m.pace()))
	m.tally(v)
}

func (m *Machine) ask(prevote bool) Ask {
	return Ask{Prevote: prevote, Lists: m.lists.Lists, Lease: m.cfg.Lease}
}

// askSelf puts the question to this node's own voter; a vote is stored before
// anything that depends on it leaves, as any other grant (§4.5).
func (m *Machine) askSelf(v *vip, it AskItem) {
	a := m.ask(v.phase == prevoting)
	ans := m.consider(v, m.self, a, it)
	if ans.Refusal == RefusedStale && v.phase != prevoting {
		it.Epoch = ans.Highest + 1
		m.raise(v, it.Epoch)
		ans = m.consider(v, m.self, a, it)
	}
	m.count(v, m.self, ans, m.now)
}

// flushAsks sends what was collected, one packet per peer and kind.
func (m *Machine) flushAsks() {
	for kind, byPeer := range m.askItem {
		for i, items := range byPeer {
			if len(items) == 0 {
				continue
			}
			a := m.ask(kind == 1)
			a.Items = items
			byPeer[i] = nil
			p := m.peers[i]
			m.rememberAsk(p, m.send(p, a))
		}
	}
}

func (m *Machine) rememberAsk(p *peer, seq Seq) {
	p.asks[p.asksNext] = sentAsk{seq: seq, sent: m.now}
	p.asksNext = (p.asksNext + 1) % len(p.asks)
}

// sentAt dates an answer by the ask it answers; what we do not remember does
// not count.
func (p *peer) sentAt(seq Seq) (Instant, bool) {
	for _, a := range p.asks {
		if a.seq == seq && seq != 0 {
			return a.sent, true
		}
	}
	return 0, false
}

func (m *Machine) onAnswer(p *peer, a Answer) {
	sent, ok := p.sentAt(a.Re)
	if !ok {
		return
	}
	for _, it := range a.Items {
		v := m.known[it.VIP]
		if v == nil {
			continue
		}
		v.saw(it.Highest)
		switch {
		case a.Prevote && v.phase == prevoting && it.Epoch >= v.first,
			!a.Prevote && (v.phase == asking || v.phase == holding) && it.Epoch >= max(v.first, v.survival.from) && it.Epoch <= v.epoch:
			m.count(v, p, it, sent)
			m.tally(v)
		}
	}
}

// count takes one voter's word.
func (m *Machine) count(v *vip, p *peer, it AnswerItem, sent Instant) {
	v.saw(it.Highest)
	t := &v.votes[p.index]
	if sent >= v.round {
		t.refused = it.Refusal
		v.rounds[p.index] = true
	}
	switch {
	case it.Refusal == RefusedStale && v.phase == prevoting:
		// Not a no: asked again at once above what this voter has seen.
		v.rounds[p.index] = false
		if it.Epoch == v.epoch && it.Highest >= it.Epoch {
			v.epoch = v.top() + 1
			v.lastSend = m.now.Add(-m.pace())
		}
	case it.Refusal == Granted && v.phase == prevoting:
		t.yes = true
	case it.Refusal == Granted:
		if !t.granted || sent > t.sent {
			t.granted, t.sent = true, sent
		}
	case it.Refusal == RefusedStale && v.phase != prevoting:
		if it.Epoch == v.epoch {
			m.raise(v, max(v.top(), it.Highest)+1)
			m.reask(v)
		}
	case it.Refusal == RefusedHeld || it.Refusal == RefusedQuiet || it.Refusal == RefusedList:
		at := m.now.Add(it.Wait)
		if it.Refusal == RefusedHeld && p != m.self {
			v.leased = max(v.leased, at)
		}
		if it.Refusal == RefusedList {
			at = m.now.Add(m.cfg.Heartbeat) // it is about to take the list, or waits for an operator
		}
		if v.retryAt <= m.now || at < v.retryAt {
			v.retryAt = at
		}
	}
}

// raise puts the epoch above one that a voter has seen; a holder keeps its
// lease meanwhile (§4.4).
func (m *Machine) raise(v *vip, e Epoch) {
	v.epoch = e
	m.noteAsked(v)
	if v.survives() { // it only asks for another
		v.survival.from = e
		v.voidVotes()
		m.beatNow = true
		return
	}
	if v.phase == holding {
		m.tell(Transition{Kind: Raised, VIP: v.ID, Epoch: e})
		m.beatNow = true
		return
	}
	v.first = e
	v.voidVotes()
}

// noteAsked keeps the epoch from being asked for twice: a voter other than our
// own may have granted it to an earlier life of this agent.
func (m *Machine) noteAsked(v *vip) {
	v.saw(v.epoch)
	if v.epoch > v.asked {
		v.asked = v.epoch
		m.dirty = true
	}
}

// reask asks everybody anew, at once.
func (m *Machine) reask(v *vip) {
	clear(v.rounds)
	if v.phase == asking {
		m.askAll(v)
	}
}

// tally acts on the votes: a majority of the prevote starts the asking, a
// majority of grants is the lease.
func (m *Machine) tally(v *vip) {
	switch v.phase {
	case prevoting:
		yes, no := m.prevotes(v)
		if yes >= m.lists.Active.Majority() {
			m.startAsking(v)
		} else if no > len(m.lists.Active)-m.lists.Active.Majority() {
			m.standBack(v)
		}
	case asking:
		if end, ok := m.leaseEnd(v); ok && end > m.now {
			m.acquire(v, end)
		} else if m.refusals(v) > len(m.lists.Active)-m.lists.Active.Majority() {
			m.standBack(v)
		}
	case holding:
		switch end, ok := m.leaseEnd(v); {
		case !ok:
		case v.survives():
			m.leaseAgain(v, end)
		default:
			v.until = max(v.until, end)
		}
	}
}

func (m *Machine) prevotes(v *vip) (yes, no int) {
	for _, p := range m.peers {
		switch {
		case !m.lists.Active.Has(p.Name):
		case v.votes[p.index].yes:
			yes++
		case v.rounds[p.index]:
			no++
		}
	}
	return yes, no
}

func (m *Machine) refusals(v *vip) (n int) {
	for _, p := range m.peers {
		t := v.votes[p.index]
		if m.lists.Active.Has(p.Name) && !t.granted && v.rounds[p.index] && t.refused != Granted && t.refused != RefusedStale {
			n++
		}
	}
	return n
}

// standBack ends a candidacy that a majority cannot follow now. A refusal that
// said for how long is asked again then; any other backs off.
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

// leaseEnd counts the lease from the majority-th newest send time among each
// voter's newest granted ask: send time, not receive time, so that the
// holder's end comes before every voter's (§4.4).
func (m *Machine) leaseEnd(v *vip) (Instant, bool) {
	need := m.lists.Active.Majority()
	var best Instant
	found := false
	for _, p := range m.peers {
		t := v.votes[p.index]
		if !t.granted || !m.lists.Active.Has(p.Name) {
			continue
		}
		newer := 0
		for _, q := range m.peers {
			u := v.votes[q.index]
			if u.granted && m.lists.Active.Has(q.Name) && u.sent >= t.sent {
				newer++
			}
		}
		if newer >= need && (!found || t.sent > best) {
			best, found = t.sent, true
		}
	}
	return best.Add(Usable(m.cfg.Lease)), found
}

// abandon ends a candidacy that has asked for no grant yet, because this
// node's vote went to another.
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
