package elect

// acquire makes this node the holder. Everybody is told at once: the others' claims
// depend on it, and a holder under a lower epoch has to let go.
func (m *Machine) acquire(v *vip, end Instant) {
	v.phase, v.held, v.until, v.since = holding, v.epoch, end, m.now
	v.checked, v.verified, v.router = false, false, RouterUnknown
	v.failed, v.unjudged = nil, false
	v.retire, v.move, v.ready, v.closing = 0, nil, nil, nil
	v.survival = survival{}
	v.previous = v.lastHeld
	if v.cause = v.lastCause; !v.seenHeld {
		v.cause = CauseBoot
	} else if v.cause == CauseNone {
		v.cause = CauseCrash
	}
	if v.cause == CauseMove || v.cause == CauseFailback {
		v.excluded = 0 // an operator wants it here all the same
	}
	m.tell(Transition{Kind: Acquired, VIP: v.ID, Node: m.self.Name, Epoch: v.epoch, Previous: v.previous,
		Cause: v.cause, Why: v.why, Noticed: v.noticed, Vacant: v.freeSince, Lease: m.cfg.Lease})
	v.seenHeld, v.told, v.passing = true, false, ""
	v.lastHeld, v.lastCause, v.noticed = m.self.Name, CauseNone, 0
	m.dropClaim(v)
	v.newRound(m.now)
	v.lastSend = m.now // the heartbeat that follows at once is the next ask
	m.noteAsked(v)
	m.durableDue = true
	m.beatNow = true
}

// renew repeats the ask to the missing voters where no majority has answered the one in
// the last heartbeat (§4.4).
func (m *Machine) renew() {
	for _, v := range m.vips {
		if v.phase != holding || v.lock.left || m.answered(v) >= m.lists.Active.Majority() || v.survives() && !m.quorum {
			continue
		}
		if next := v.lastSend.Add(m.pace()); m.now < next {
			m.due(next)
			continue
		}
		m.askAll(v)
	}
}

// answered counts the voters that have answered in this round. A quiet voter does not
// count: it cannot grant, so the others are needed.
func (m *Machine) answered(v *vip) (n int) {
	for _, p := range m.electorate {
		if v.rounds[p.index] && v.votes[p.index].refused != RefusedQuiet {
			n++
		}
	}
	return n
}

// lapse ends every lease whose time is over, before anything else can prolong it. An
// answer that came in time but is taken too late does not bring it back.
func (m *Machine) lapse() {
	for _, v := range m.vips {
		if v.phase == holding && m.now >= v.until {
			m.tell(Transition{Kind: Lapsed, VIP: v.ID, Epoch: v.held, Node: m.self.Name, Text: m.whySurvivorEnds(v)})
			if v.survives() {
				m.surrender(v)
				continue
			}
			m.letGo(v, Release{Cause: CauseCrash})
		}
	}
}

// letGo stops holding. The address goes first; the release follows once the kernel says
// that it is gone (§4.4). This node never holds that epoch again.
func (m *Machine) letGo(v *vip, r Release) {
	r.VIP, r.Holder, r.Instance, r.Epoch = v.ID, m.self.Name, m.instance, v.epoch
	v.release, v.closing = &r, nil
	v.phase = unbinding
	v.givenUp = max(v.givenUp, v.epoch)
	v.retire = v.held
	v.survival.epoch = 0
	v.until = 0
	v.voidVotes()
	m.dirty = true
	m.beatNow = true
}

// giveUp ends a candidacy, so that no late vote can revive it: it voids every vote under
// way, and releases what others may have granted (§4.4).
func (m *Machine) giveUp(v *vip, cause Cause) {
	v.phase = idle
	v.givenUp = max(v.givenUp, v.epoch)
	v.voidVotes()
	m.dirty = true
	r := Release{VIP: v.ID, Holder: m.self.Name, Instance: m.instance, Epoch: v.epoch, Cause: cause}
	m.applyRelease(v, r)
	m.releaseTo(v, r)
}

// onBound takes the kernel's word. A release leaves only when the address is gone. A VIP
// that could not be bound is let go; if a half-made binding could not be undone, its
// release waits until the address is gone.
func (m *Machine) onBound(e Bound) {
	v := find(m.everyVIP(), e.VIP)
	if v == nil {
		return
	}
	if e.Err != "" {
		m.tell(Transition{Kind: BindFailed, VIP: v.ID, Epoch: v.held, Text: e.Err})
	}
	switch {
	case v.phase == unbinding && !e.On:
		m.sendRelease(v)
	case v.phase == holding && e.Err != "":
		// This node cannot serve what it cannot bind; another node may.
		v.excluded = m.now.Add(m.cfg.Exclude)
		v.backoffUntil = m.now.Add(m.backoff())
		m.letGo(v, Release{Cause: CauseVerify})
		if !e.On {
			m.sendRelease(v)
		}
	}
}

// releaseUnbound releases what was let go in the same step that acquired it: the kernel
// was never told of it, so no Bound will come.
func (m *Machine) releaseUnbound() {
	for _, v := range m.everyVIP() {
		if v.phase == unbinding && !v.wanted {
			m.sendRelease(v)
		}
	}
}

// sendRelease gives the lease back, or on to the successor, once the address is gone.
func (m *Machine) sendRelease(v *vip) {
	r := *v.release
	v.release, v.phase = nil, idle
	v.freeSince = m.now
	v.passing = r.Successor
	v.lastCause = r.Cause
	if v.move != nil {
		r.Ago = m.now.Sub(v.move.noticed)
		if m.now.Sub(v.move.readyAt) > m.cfg.Lease/4 {
			r.Nonce = 0 // too old to hold by: the successor asks instead
		}
		v.move = nil
	}
	r.Voted = m.applyRelease(v, r)
	m.tell(Transition{Kind: LetGo, VIP: v.ID, Node: m.self.Name, Epoch: v.held, Successor: r.Successor, Cause: r.Cause})
	m.releaseTo(v, r)
}

// onVerified takes the word on a VIP that this node holds. A failed verification, or a
// failed action that gives the VIP back, moves the VIP on only where that can help
// (§5.5).
func (m *Machine) onVerified(e Verified) {
	v := m.known[e.VIP]
	if v == nil || !v.serves() || e.Epoch < v.first || e.Epoch > v.epoch {
		return
	}
	v.failed, v.unjudged = nil, false
	if !e.OK && !e.Skipped {
		v.failed, v.unjudged = &e, m.frozen(m.self)
	}
	if !v.unjudged {
		m.judge(v, e)
	}
}

func (m *Machine) judge(v *vip, e Verified) {
	v.checked, v.verified, v.unjudged = true, e.OK, false
	m.beatNow = true
	v.ever = v.ever || e.OK
	if e.OK || e.Skipped {
		return
	}
	kind := VerifyFailed
	if e.GiveBack {
		kind = ActionFailed
	}
	if m.mayMoveOn(v, e) {
		v.excluded = m.now.Add(m.cfg.Exclude)
		m.tell(Transition{Kind: kind, VIP: v.ID, Epoch: v.held, Text: "moving it on"})
		return
	}
	m.tell(Transition{Kind: kind, VIP: v.ID, Epoch: v.held, Text: "holding on: " + m.whyHoldUnverified(v, e)})
}

// judgeAgain judges once more what speaks against this node: a freeze that put judging
// off is over, or a node is fit now that was not before. A verification that was true
// only at its time is dropped, because the VIP may answer by now. A standing word is
// still true.
func (m *Machine) judgeAgain() {
	if m.frozen(m.self) {
		return // it is done when the freeze ends
	}
	for _, v := range m.vips {
		e := v.failed
		switch {
		case e == nil || !v.serves():
		case v.unjudged && !e.Standing && !e.GiveBack:
			v.failed, v.unjudged = nil, false
		case v.unjudged, e.Standing && m.now >= v.excluded && m.mayMoveOn(v, *e):
			m.judge(v, *e)
		}
	}
}

// mayMoveOn reports whether the VIP may move on: another node could take it, and an
// action has failed or the VIP, now silent, has answered before.
func (m *Machine) mayMoveOn(v *vip, e Verified) bool {
	return (v.ever || e.GiveBack) && m.otherCouldVerify(v)
}

func (m *Machine) whyHoldUnverified(v *vip, e Verified) string {
	if !v.ever && !e.GiveBack {
		return "it has never answered since the configuration was loaded"
	}
	return "no other fit node is left to try"
}

// otherCouldVerify reports whether there is another fit node that has not failed this VIP
// lately.
func (m *Machine) otherCouldVerify(v *vip) bool {
	for _, p := range m.peers {
		if p != m.self && (p.Holder || v.Role) && m.isFit(p) && !m.excludes(p, v) {
			return true
		}
	}
	return false
}

func (m *Machine) excludes(p *peer, v *vip) bool {
	if p == m.self {
		m.due(v.excluded)
		return m.now < v.excluded || m.cutOff(v)
	}
	for _, id := range p.beat.Excluded {
		if id == v.ID {
			return true
		}
	}
	return false
}
