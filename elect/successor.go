package elect

// ready is what this node, as successor, has promised.
type ready struct {
	from    *peer
	epoch   Epoch // the holder's
	asked   Instant
	running bool // the prepare actions, or what follows them, are under way
	failed  string
	at      Instant // when it said ready: its lease counts from here
	nonce   Nonce
	cause   Cause
	passed  []bool // by peer index: its vote is now this node's
	noticed Instant
}

// onPrepare is the successor's side of a move: this node gives up any candidacy of its
// own and gets ready.
func (m *Machine) onPrepare(p *peer, pr Prepare) {
	v := m.known[pr.VIP]
	if v == nil {
		return
	}
	v.saw(pr.Epoch)
	if v.phase == holding && pr.Epoch > v.epoch {
		m.letGo(v, Release{Cause: CauseCrash}) // the sender holds it under a higher epoch (§4.2)
	}
	if v.phase == holding || v.phase == unbinding {
		return
	}
	if why := m.whyNotReady(v); why != "" {
		m.send(p, Ready{VIP: v.ID, Epoch: pr.Epoch, Refused: why})
		return
	}
	r := v.ready
	if r == nil || r.from != p || r.epoch != pr.Epoch {
		m.drop(v)
		r = &ready{from: p, epoch: pr.Epoch, asked: m.now, running: true, cause: pr.Cause,
			passed: make([]bool, len(m.peers)), noticed: m.now.Add(-pr.Ago)}
		v.ready = r
		m.eff.Prepare = append(m.eff.Prepare, PrepareVIP{VIP: v.ID, Epoch: pr.Epoch, Previous: p.Name, Cause: pr.Cause})
	} else if !r.running && r.failed == "" && m.now.Sub(r.at) > m.cfg.Lease/4 {
		r.running, r.nonce, r.asked = true, 0, m.now
		m.eff.Prepare = append(m.eff.Prepare, PrepareVIP{VIP: v.ID, Epoch: pr.Epoch, Previous: p.Name, Cause: pr.Cause, Again: true})
	}
	m.sayReady(v)
}

func (m *Machine) whyNotReady(v *vip) string {
	switch {
	case v.Lock:
		return "a lock is not moved"
	case m.stopping:
		return "its agent is stopping"
	case !m.self.Holder && !v.Role:
		return "it is a witness"
	case m.lists.Active == nil:
		return "it has no voter list yet"
	case m.now < m.quietUntil && m.votes():
		return "it has just restarted"
	}
	return m.unfit(m.self)
}

func (m *Machine) sayReady(v *vip) {
	r := v.ready
	out := Ready{VIP: v.ID, Epoch: r.epoch, Lease: m.cfg.Lease, Lists: m.lists.Lists}
	switch {
	case r.running:
		out.Pending = true
	case r.failed != "":
		out.Refused = r.failed
		v.ready = nil
	default:
		out.Nonce = r.nonce
	}
	m.send(r.from, out)
}

func (m *Machine) onPrepared(e Prepared) {
	v := m.known[e.VIP]
	if v == nil || v.ready == nil || v.ready.epoch != e.Epoch || !v.ready.running {
		return
	}
	r := v.ready
	r.running, r.failed = false, e.Failed
	if r.failed == "" {
		r.failed = m.whyNotReady(v) // things may have changed while it got ready
	}
	if r.failed == "" {
		r.at = m.now
		r.nonce = Nonce(m.rng.Uint64() | 1)
	}
	m.sayReady(v)
}

// succeed takes over by a release that names this node. These votes count: the old
// holder's if that vote was its own, this node's if it was the old holder's, and that of
// the voter (by) that passed the release on. The lease counts from the moment this node
// said ready (§4.4).
func (m *Machine) succeed(v *vip, r Release, by *peer) {
	e := r.Epoch + 1
	if r.SuccessorInstance != m.instance || e <= v.givenUp || v.phase == unbinding || v.phase == holding {
		return
	}
	if v.phase == asking {
		return // it asks above this epoch already; giving that up now would release these grants too
	}
	v.passing = m.self.Name
	v.saw(e)
	rd := v.ready
	if rd == nil || rd.nonce == 0 || rd.nonce != r.Nonce {
		return // the grants are ours all the same: candidacies asks at once
	}
	holder := m.peer(r.Holder)
	if holder != rd.from || holder == nil {
		return
	}
	rd.cause = r.Cause
	rd.passed[holder.index] = rd.passed[holder.index] || r.Voted
	if m.votes() && m.passed(v, r) {
		rd.passed[m.self.index] = true
	}
	if by != nil {
		rd.passed[by.index] = true
	}
	n := 0
	for _, p := range m.peers {
		if rd.passed[p.index] && m.lists.Active.Has(p.Name) {
			n++
		}
	}
	end := rd.at.Add(Usable(m.cfg.Lease))
	if m.lists.Active == nil || n < m.lists.Active.Majority() || end <= m.now {
		return
	}
	m.abandon(v)
	v.epoch, v.first = e, e
	v.voidVotes()
	for i, passed := range rd.passed {
		if passed {
			v.votes[i] = vote{granted: true, sent: rd.at}
		}
	}
	v.lastHeld, v.seenHeld, v.lastCause = r.Holder, true, r.Cause
	v.why, v.noticed, v.freeSince = m.whyHere(v, r.Cause), rd.noticed, rd.at
	m.acquire(v, end)
}

func (m *Machine) whyHere(v *vip, c Cause) Why {
	if c == CauseMove {
		return WhyAsked
	}
	for _, r := range m.rank(v, m.loads(), nil) {
		if r.node == m.self {
			return r.why
		}
	}
	return WhyAsked
}

// onPassed takes a voter's word that its grant is now ours. The whole release is in it.
func (m *Machine) onPassed(p *peer, msg Passed) {
	r := msg.Release
	v := m.known[r.VIP]
	holder := m.peer(r.Holder)
	if v == nil || holder == nil || r.Successor != m.self.Name {
		return
	}
	m.noteRelease(v, holder, r)
	if m.votes() {
		m.applyRelease(v, r)
	}
	m.succeed(v, r, p)
}
