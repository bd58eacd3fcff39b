package elect

// forgetWaits asks the voters again that refused with held or quiet, once the first time
// that a refusal named has passed. Our own grant ends a moment before theirs, and with
// the old holder silent every other vote is needed.
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

// askAll asks every voter of the active list that has not answered in this round, this
// node's own voter first.
func (m *Machine) askAll(v *vip) {
	v.lastSend = m.now
	it := AskItem{VIP: v.ID, Epoch: v.epoch, Holding: v.phase == holding && !v.survives()}
	if m.lists.Active.Has(m.self.Name) && !v.rounds[m.self.index] {
		m.askSelf(v, it)
	}
	if v.phase == idle {
		return // our own voter's refusal ended the candidacy
	}
	kind := 0
	if v.phase == prevoting {
		kind = 1
	}
	it.Epoch = v.epoch
	for _, p := range m.electorate {
		if p != m.self && !v.rounds[p.index] {
			m.askItem[kind][p.index] = append(m.askItem[kind][p.index], it)
			m.asks = true
		}
	}
	m.due(m.now.Add(m.pace()))
	m.tally(v)
}

func (m *Machine) ask(prevote bool) Ask {
	return Ask{Prevote: prevote, Lists: m.lists.Lists, Lease: m.cfg.Lease}
}

// askSelf asks this node's own voter. Its vote is stored before anything that depends on
// it leaves, like any other grant (§4.5).
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

// flushAsks sends the items collected in this step: one packet per peer for asks, one for
// prevotes.
func (m *Machine) flushAsks() {
	if !m.asks {
		return
	}
	m.asks = false
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
	if p.asks == nil {
		p.asks = make([]sentAsk, rememberedAsks)
	}
	p.asks[p.asksNext] = sentAsk{seq: seq, sent: m.now}
	p.asksNext = (p.asksNext + 1) % len(p.asks)
}

// sentAt is when the ask with that number left. An answer to an ask that is not
// remembered does not count.
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

// count takes one voter's answer about one VIP.
func (m *Machine) count(v *vip, p *peer, it AnswerItem, sent Instant) {
	v.saw(it.Highest)
	t := &v.votes[p.index]
	if sent >= v.round {
		t.refused = it.Refusal
		v.rounds[p.index] = true
	}
	switch {
	case it.Refusal == RefusedStale && v.phase == prevoting:
		// This is not a no: the voter is asked again at once, above the epoch that it has
		// seen.
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
		t.epoch = max(t.epoch, it.Epoch)
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
			at = m.now.Add(m.cfg.Heartbeat) // the voter is about to take the list, or waits for an operator
		}
		if v.retryAt <= m.now || at < v.retryAt {
			v.retryAt = at
		}
	}
}

// raise asks under the epoch e, which is above one that a voter has seen. A holder keeps
// its lease meanwhile (§4.4).
func (m *Machine) raise(v *vip, e Epoch) {
	v.epoch = e
	m.noteAsked(v)
	if v.phase == holding {
		m.beatNow = true
		if v.survives() {
			v.survival.from = e
			v.voidVotes()
		}
		return
	}
	v.first = e
	v.voidVotes()
}

// riseTogether makes a raised epoch the holder's own once a majority has granted it.
// Before that nobody may have heard of it, so it could become a successor's too.
func (m *Machine) riseTogether(v *vip) {
	if v.held == v.epoch || v.survives() {
		return
	}
	n := 0
	for _, p := range m.electorate {
		if t := v.votes[p.index]; t.granted && t.epoch == v.epoch {
			n++
		}
	}
	if n >= m.lists.Active.Majority() {
		v.held = v.epoch
		m.tell(Transition{Kind: Raised, VIP: v.ID, Epoch: v.held})
	}
}

// noteAsked stores the epoch as asked for, so that a later life of this agent does not
// ask for it again: another voter may have granted it to this one.
func (m *Machine) noteAsked(v *vip) {
	v.saw(v.epoch)
	if v.epoch > v.asked {
		v.asked = v.epoch
		m.dirty = true
	}
}

// reask starts the round over, so that every voter is asked again. A candidate asks at
// once; a holder's next heartbeat, due at once, asks.
func (m *Machine) reask(v *vip) {
	clear(v.rounds)
	if v.phase == asking {
		m.askAll(v)
	}
}

// tally acts on the votes. A majority's yes to the prevote starts the asking; a majority
// of grants is the lease. A candidate that can no longer get a majority stands back.
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
		m.riseTogether(v)
	}
}

func (m *Machine) prevotes(v *vip) (yes, no int) {
	for _, p := range m.electorate {
		switch {
		case v.votes[p.index].yes:
			yes++
		case v.rounds[p.index]:
			no++
		}
	}
	return yes, no
}

func (m *Machine) refusals(v *vip) (n int) {
	for _, p := range m.electorate {
		t := v.votes[p.index]
		if !t.granted && v.rounds[p.index] && t.refused != Granted && t.refused != RefusedStale {
			n++
		}
	}
	return n
}

// leaseEnd is when the lease ends. Take the send time of each voter's newest granted ask;
// the lease counts from the majority-th newest of them. It is the send time, not the
// receive time, so the holder's end comes before every voter's (§4.4).
func (m *Machine) leaseEnd(v *vip) (Instant, bool) {
	need := m.lists.Active.Majority()
	var best Instant
	found := false
	for _, p := range m.electorate {
		t := v.votes[p.index]
		if !t.granted {
			continue
		}
		newer := 0
		for _, q := range m.electorate {
			u := v.votes[q.index]
			if u.granted && u.sent >= t.sent {
				newer++
			}
		}
		if newer >= need && (!found || t.sent > best) {
			best, found = t.sent, true
		}
	}
	return best.Add(Usable(m.cfg.Lease)), found
}
