package elect

import "time"

// onAsk takes an ask that came outside a heartbeat. It also shows which VIPs the sender
// holds.
func (m *Machine) onAsk(p *peer, seq Seq, a Ask) {
	for _, it := range a.Items {
		v := m.leased(it.VIP)
		if v == nil || !it.Holding {
			continue
		}
		h := Hold{VIP: it.VIP}
		if v.claim.by == p {
			h = v.claim.hold
		}
		h.Epoch = it.Epoch
		m.showHolder(v, p, h)
	}
	m.answer(p, seq, a)
}

// answer answers all items of an ask in one packet.
func (m *Machine) answer(p *peer, seq Seq, a Ask) {
	ans := Answer{Re: seq, Prevote: a.Prevote}
	if len(a.Items) > 0 && m.votes() {
		ans.Items = make([]AnswerItem, 0, len(a.Items))
	}
	for _, it := range a.Items {
		v := m.leased(it.VIP)
		if v == nil {
			continue // a VIP of another configuration, or a lock beyond maxLocks: no vote
		}
		if !m.votes() {
			continue
		}
		if !a.Prevote && m.now >= m.quietUntil && m.lists.allow(a.Lists) && !m.noConfidence(v, p) {
			m.yield(v, p)
		}
		ans.Items = append(ans.Items, m.consider(v, p, a, it))
	}
	if len(ans.Items) > 0 {
		m.send(p, ans)
	}
}

// votes reports whether this node grants. While it is on the active list it grants, even
// if its file no longer makes it a voter (§4.9).
func (m *Machine) votes() bool { return m.self.Voter || m.lists.Active.Has(m.self.Name) }

// consider is the voter's decision about one item. An ask is judged alike whether it
// acquires or renews (§4.3).
func (m *Machine) consider(v *vip, p *peer, a Ask, it AskItem) AnswerItem {
	ans := AnswerItem{VIP: v.ID, Epoch: it.Epoch}
	g := v.grant
	own := g != nil && g.Holder == p.Name && g.Instance == p.instance
	live := g != nil && m.now < g.until
	switch {
	case m.now < m.quietUntil:
		ans.Refusal, ans.Wait = RefusedQuiet, m.quietUntil.Sub(m.now)
	case a.Lease > m.stored.LongestLease:
		// The quiet time after a reboot must cover this lease, so the lease's length has
		// to be on disk before the grant exists.
		m.noteLease(a.Lease)
		ans.Refusal, ans.Wait = RefusedQuiet, m.pace()
	case live && !own:
		ans.Refusal, ans.Wait = RefusedHeld, g.until.Sub(m.now)
	case m.keptFromOthers(v, p) > 0:
		ans.Refusal, ans.Wait = RefusedHeld, min(m.keptFromOthers(v, p), a.Lease) // what is kept may end sooner
	case it.Epoch <= v.barred, g != nil && !own && it.Epoch <= g.Epoch, own && it.Epoch < g.Epoch:
		ans.Refusal = RefusedStale
	case m.noConfidence(v, p):
		ans.Refusal = RefusedNoConfidence
	case !m.lists.allow(a.Lists):
		ans.Refusal = RefusedList
	case !a.Prevote:
		m.grant(v, Grant{Holder: p.Name, Instance: p.instance, Epoch: it.Epoch, Lease: a.Lease, until: m.now.Add(a.Lease)})
	}
	ans.Highest = v.top()
	return ans
}

// grant records this voter's part of a lease. Only a change of holder, instance, epoch or
// lease makes a new record. Of a renewal only the end is stored, as a GrantEnd (§4.5).
func (m *Machine) grant(v *vip, g Grant) {
	if o := v.grant; o == nil || o.Holder != g.Holder || o.Instance != g.Instance || o.Epoch != g.Epoch || o.Lease != g.Lease {
		m.dirty = true
		m.durableDue = m.durableDue || g.Epoch > m.durable.Highest[v.highestKey()]
		v.grant = &g
	}
	m.promiseUntil(v, g.until)
	v.saw(g.Epoch)
	if g.Holder != m.self.Name {
		m.abandon(v)
	}
}

func (m *Machine) promiseUntil(v *vip, end Instant) {
	v.grant.until = end
	if !v.Lock { // names that come and go have no room there: after a restart the grant counts for one full lease
		m.eff.Granted = append(m.eff.Granted, GrantEnd{v.ID, v.grant.Epoch, end})
	}
}

// yield ends this node's candidacy where it and a candidate with a lower configured index
// block each other. This node may take its own vote back, because it does not hold yet
// (§4.4).
func (m *Machine) yield(v *vip, p *peer) {
	if v.phase == asking && p.index < m.self.index {
		m.giveUp(v, CauseNone)
		v.backoffUntil = m.now.Add(m.backoff())
	}
}

// noConfidence reports whether the asker is unfit as seen from here while some other node
// is fit (§4.3, §4.7).
func (m *Machine) noConfidence(v *vip, asker *peer) bool {
	g := v.grant
	own := g != nil && g.Holder == asker.Name && g.Instance == asker.instance && m.now < g.until
	if v.Lock || m.unfit(asker) == "" || m.recovering() || m.closes(v, asker) || own && m.stillServes(asker) {
		return false
	}
	for _, p := range m.peers {
		if p != asker && m.isFit(p) && (p.Holder || v.Role) && !(own && m.soonUnfit(p, asker)) {
			return true
		}
	}
	return false
}

// soonUnfit reports whether all others but the sick holder doubt p's PBX. Then p would be
// called unfit next: a sickness of all shows at one node after the other. If p is still
// fit after settle, it was no sickness of all.
func (m *Machine) soonUnfit(p, holder *peer) bool {
	all := m.observers(p)
	if holder.alive {
		all.count(m.verdict(holder, p), -1)
	}
	return all.doubt() && m.sickFor(holder) < m.settle()
}

// sickFor is how long a holder has been unfit. A sickness of all does not count, nor does
// the time to recover from it.
func (m *Machine) sickFor(holder *peer) time.Duration {
	if holder.unfit == "" {
		return 0 // the packet that says so is being taken now
	}
	return m.now.Sub(max(holder.unfitSince, m.recovered()))
}

// stillServes reports whether the holder's own checks alone speak against it, while its
// PBX answers. The holder hands over by itself, as soon as another node whose checks say
// yes is ready. It gets the time to ask each of them, and settle more.
func (m *Machine) stillServes(holder *peer) bool {
	if all := m.observers(holder); m.verdict(holder, holder) != SIPUnready || all.live == 0 || all.doubted > 0 {
		return false
	}
	patience := m.settle()
	for _, p := range m.peers {
		if p != holder && p.Holder {
			patience += m.patience(CauseCheck)
		}
	}
	return m.sickFor(holder) < patience
}

// applyRelease changes our grant if it is the released one, and reports whether it is now
// the successor's (§4.3). If an ask of the successor would be refused, because of its
// list or because its lease is longer than the quiet time on disk, the grant is only
// cleared and the successor has to ask.
func (m *Machine) applyRelease(v *vip, r Release) bool {
	g := v.grant
	if g == nil || g.Holder != r.Holder || g.Instance != r.Instance || g.Epoch > r.Epoch {
		return false
	}
	v.barred = max(v.barred, r.Epoch)
	v.saw(r.Epoch)
	m.dirty = true
	v.retryAt = 0 // a refusal may have said to wait for this grant
	if r.Successor == "" || r.Lease > m.stored.LongestLease || !m.lists.allow(r.Lists) {
		m.noteLease(r.Lease)
		v.grant = nil
		return false
	}
	v.saw(r.Epoch + 1)
	m.durableDue = true
	v.grant = &Grant{Holder: r.Successor, Instance: r.SuccessorInstance, Epoch: r.Epoch + 1, Lease: r.Lease}
	m.promiseUntil(v, m.now.Add(r.Lease))
	return true
}

// onRelease takes the old holder's release, acknowledges it, and tells the successor. It
// does so each time the release is repeated.
func (m *Machine) onRelease(p *peer, r Release) {
	if r.Holder != p.Name || r.Instance != p.instance {
		return
	}
	v := m.known[r.VIP]
	if v == nil {
		return
	}
	m.noteRelease(v, p, r)
	if m.votes() {
		m.applyRelease(v, r)
		m.send(p, Released{VIP: r.VIP, Epoch: r.Epoch})
		if s := m.peer(r.Successor); s != nil && s != m.self && m.passed(v, r) {
			m.send(s, Passed{Release: r})
		}
	} else if m.self.Name == r.Successor {
		m.send(p, Released{VIP: r.VIP, Epoch: r.Epoch})
	}
	if r.Successor == m.self.Name {
		m.succeed(v, r, nil)
	}
}

// passed reports whether this release has made our grant the successor's, in this copy or
// an earlier one.
func (m *Machine) passed(v *vip, r Release) bool {
	g := v.grant
	return g != nil && g.Holder == r.Successor && g.Instance == r.SuccessorInstance && g.Epoch == r.Epoch+1 && v.barred == r.Epoch
}

// noteRelease updates this node's view: p, the old holder, no longer claims the VIP.
func (m *Machine) noteRelease(v *vip, p *peer, r Release) {
	v.saw(r.Epoch)
	if v.claim.by == p && v.claim.hold.Epoch <= r.Epoch {
		m.dropClaim(v)
	} else if v.claim.by != nil || v.lastHeld != p.Name || r.Cause == CauseNone {
		return
	}
	// The heartbeat that no longer claims the VIP may have come first.
	v.noticed = m.now.Add(-r.Ago)
	v.lastCause = r.Cause
	v.passing = r.Successor
}
