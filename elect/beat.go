package elect

// beat sends the heartbeat: one per peer per interval, and one at once when something
// changed. It begins the holder's next round of asking (§4.2, §4.4).
func (m *Machine) beat() {
	if m.now < m.nextBeat && !m.beatNow {
		return
	}
	// A step that comes late does not delay the beats that follow.
	if m.nextBeat = m.nextBeat.Add(m.cfg.Heartbeat); m.beatNow || m.nextBeat <= m.now {
		m.nextBeat = m.now.Add(m.cfg.Heartbeat)
	}
	m.beatNow = false
	b := m.heartbeat()
	var to [2]Message // [1] is for receivers that are heard through the gateway; each is made once
	for _, p := range m.peers {
		if p == m.self {
			continue
		}
		i := 0
		if m.relayFresh(p) {
			i = 1
		}
		if to[i] == nil {
			b.Relayed = i == 1
			to[i] = b
		}
		asks := len(b.Holds) > 0
		if seq := m.sendBy(false, p, to[i]); asks {
			m.rememberAsk(p, seq)
		}
		m.relayBeat(p, to[i], asks)
	}
}

func (m *Machine) heartbeat() Heartbeat {
	b := Heartbeat{
		Config: m.cfg.Digest, Lists: m.lists.Lists, Lease: m.cfg.Lease,
		SIP: m.self.seen, Drained: m.drained(m.self), HeldDown: m.heldDown(m.self) || m.sickened(), Frozen: m.frozenFor(m.self),
	}
	b.Observes, b.Rest = m.views()
	b.Reaches, b.AllReach = m.reached()
	for _, v := range m.vips {
		if m.excludes(m.self, v) {
			b.Excluded = append(b.Excluded, v.ID)
		}
		if v.phase != holding || v.lock.left {
			continue
		}
		v.newRound(m.now)
		v.lastSend = m.now
		if m.lists.Active.Has(m.self.Name) {
			m.askSelf(v, AskItem{VIP: v.ID, Epoch: v.epoch, Holding: true})
			m.tally(v)
		}
		b.Holds = append(b.Holds, Hold{VIP: v.ID, Epoch: v.epoch, Survivor: v.survival.epoch, Age: m.now.Sub(v.since), Cause: v.cause, Why: v.why,
			Checked: v.checked, Verified: v.verified, Ever: v.ever, Moving: v.moving(), Router: v.router})
	}
	return b
}

func (m *Machine) onHeartbeat(p *peer, seq Seq, b Heartbeat) {
	if m.nothingNew(p, b) {
		m.seen.calm = p
	}
	m.suspect(p, p.beat, b)
	m.hearViews(p, p.beat, b)
	p.beat, p.heard, p.beatAt = b, true, m.now
	m.noteReached(p, b.AllReach, b.Reaches)
	a := Ask{Lists: b.Lists, Lease: b.Lease}
	if len(b.Holds) > 0 {
		a.Items = make([]AskItem, 0, len(b.Holds))
	}
	for _, h := range b.Holds {
		if v := m.leased(h.VIP); v != nil {
			m.showHolder(v, p, h)
			a.Items = append(a.Items, AskItem{VIP: h.VIP, Epoch: h.Epoch, Holding: true})
		} else {
			m.noteStranger(h)
		}
	}
	for _, v := range m.vips {
		if v.claim.by == p && v.claim.heard != m.now {
			m.dropClaim(v)
		}
	}
	if len(a.Items) > 0 {
		m.answer(p, seq, a)
	}
}

// showHolder takes a message that shows another node holding the VIP. A holder
// under a lower epoch lets go at once (§4.2).
func (m *Machine) showHolder(v *vip, p *peer, h Hold) {
	v.saw(h.Epoch)
	v.seenHeld = true
	if h.Age > m.now.Sub(m.started) {
		m.health.joined = true
	}
	v.ever = v.ever || h.Ever || h.Verified
	if v.phase == holding {
		switch {
		case v.survives():
			if outranks(h, p, v, m.self) {
				m.surrender(v)
			}
		case h.Survivor != 0: // that survivor yields when it hears us
		case h.Epoch > v.epoch:
			m.letGo(v, Release{Cause: CauseCrash})
		}
		return
	}
	c := &v.claim
	if c.by != nil && c.by != p && !supersedes(h, c.hold) {
		return
	}
	if c.by != p || h.Epoch < c.hold.Epoch {
		c.since = m.now.Add(-h.Age)
		m.tell(Transition{Kind: HolderSeen, VIP: v.ID, Node: p.Name, Epoch: h.claims(), Previous: v.lastHeld, Cause: h.Cause, Why: h.Why, Lease: p.beat.Lease})
	}
	c.by, c.hold, c.heard = p, h, m.now
	v.told, v.passing, v.lastHeld, v.lastCause, v.noticed = false, "", p.Name, CauseNone, 0
	if v.retire != 0 && h.Epoch > v.retire && h.Checked {
		m.tell(Transition{Kind: RetireDue, VIP: v.ID, Node: m.self.Name, Epoch: v.retire, Successor: p.Name, Cause: h.Cause})
		v.retire = 0
	}
	m.abandon(v)
}

func (m *Machine) dropClaim(v *vip) {
	if v.claim.by != nil {
		v.freeSince = m.now
	}
	v.claim = claim{}
}

// observeClaim ends a claim whose node is silent. It tells once if a VIP then has no
// holder for a lease.
func (m *Machine) observeClaim(v *vip) {
	if p := v.claim.by; p != nil {
		end := v.claim.heard.Add(m.silence(p))
		if m.now >= end {
			v.noticed = v.claim.heard
			v.claim = claim{}
			v.freeSince = end
		} else {
			m.due(end)
		}
	}
	if m.holder(v) != nil || v.told || v.phase == unbinding || v.Lock {
		return
	}
	if m.now < v.leased {
		m.due(v.leased)
		return
	}
	if at := v.freeSince.Add(m.cfg.Lease); m.now < at {
		m.due(at)
		return
	}
	v.told = true
	m.tell(Transition{Kind: VIPVacant, VIP: v.ID, Epoch: v.top(), Text: m.whyVacant(v)})
}

// whyVacant says in words why nobody holds the VIP.
func (m *Machine) whyVacant(v *vip) string {
	switch {
	case m.lists.Active == nil:
		return "no voter list is active yet: waiting " + m.lists.waiting
	case !m.quorum && m.cfg.Survivor == SurvivorNever:
		return "no majority of voters is heard"
	case !m.quorum:
		return "no majority of voters is heard; " + m.whyNotAlone(v)
	case m.now < m.quietUntil:
		return "this voter has just restarted and waits out the leases it may have granted"
	}
	r := m.rank(v, m.loads(), nil)
	switch {
	case m.now < v.leased:
		return "a voter has leased it to a node that is not heard here"
	case len(r) == 0:
		return "no node is fit"
	case v.passing != "":
		return "on its way to " + string(v.passing)
	case !v.seenHeld:
		return "cold start: waiting for its preferred node"
	}
	return string(r[0].node.Name) + " is next: " + r[0].why.String()
}
