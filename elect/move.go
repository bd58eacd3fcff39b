package elect

import (
	"fmt"
)

// move is a planned takeover as its holder runs it (§4.4).
type move struct {
	to       *peer
	cause    Cause
	why      Why
	started  Instant // with this successor
	sent     Instant // of the last prepare
	heard    Instant // of the last word from the successor
	pending  bool    // the successor's prepare actions run
	noticed  Instant
	readyAt  Instant
	tried    []bool // by peer index
	only     bool   // an operator named the successor: no other will do
	lastFail string
}

// ready is what this node, as successor, has promised.
type ready struct {
	from    *peer
	epoch   Epoch // the holder's
	asked   Instant
	running bool // prepare actions, or the fresh OPTIONS
	failed  string
	at      Instant // when it said ready: its lease counts from here
	nonce   Nonce
	cause   Cause
	passed  []bool // by peer index: whose vote came over
	noticed Instant
}

// steerMoves starts the moves that a rule demands and carries on those under
// way.
func (m *Machine) steerMoves() {
	for _, v := range m.vips {
		if v.ready != nil && !v.ready.running && m.now >= v.ready.asked.Add(m.cfg.PrepareTimeout+m.cfg.Lease) {
			v.ready = nil
		}
		if v.phase != holding {
			continue
		}
		if v.move == nil {
			if cause := m.moveCause(v); cause != CauseNone {
				m.startMove(v, cause, nil)
			}
		}
		if v.move != nil && m.healed(v) {
			v.move.lastFail = string(m.self.Name) + " is fit again"
			m.endMove(v)
			v.moveAfter = 0
		}
		if v.move != nil {
			m.carryMove(v)
		}
	}
	m.giveUpAtStop()
}

// healed: the PBX that a move runs from answers again before anything was let
// go, and the holder is fit at its first good answer (§4.7).
//
// Each voter's last word counts, of whatever round: a beat begins a new round,
// in which nobody has said anything yet.
func (m *Machine) healed(v *vip) bool {
	if v.move.cause == CauseLink {
		return !v.linkDown
	}
	if v.move.cause != CauseSIP || v.move.only || m.unfit(m.self) != "" {
		return false
	}
	n := 0
	for _, p := range m.peers {
		if m.lists.Active.Has(p.Name) && v.votes[p.index].refused == RefusedNoConfidence {
			n++
		}
	}
	return n < m.lists.Active.Majority()
}

// moveCause is why a VIP has to leave this node, if it has to (§4.7, §4.8).
func (m *Machine) moveCause(v *vip) Cause {
	if m.now < v.moveAfter {
		m.due(v.moveAfter)
		return CauseNone
	}
	switch {
	case m.stopping:
		return CauseStop
	case v.linkDown:
		return CauseLink
	case m.recovering():
	case m.unfit(m.self) != "" || m.majoritySays(v, RefusedNoConfidence):
		return CauseSIP
	case m.excludes(m.self, v):
		return CauseVerify
	case m.durable.Drained:
		return CauseDrain
	case m.failbackDue(v):
		return CauseFailback
	}
	return CauseNone
}

func (m *Machine) majoritySays(v *vip, r Refusal) bool {
	n := 0
	for _, p := range m.peers {
		if m.lists.Active.Has(p.Name) && v.rounds[p.index] && v.votes[p.index].refused == r {
			n++
		}
	}
	return m.lists.Active != nil && n >= m.lists.Active.Majority()
}

// failbackDue: the first in prefer has been fit long enough and failback is
// automatic.
func (m *Machine) failbackDue(v *vip) bool {
	if !m.cfg.FailbackAuto || len(v.Prefer) == 0 || v.Prefer[0] == m.self.Name {
		return false
	}
	home := m.peer(v.Prefer[0])
	if home == nil || !home.fit || m.heldDown(home) || m.excludes(home, v) {
		return false
	}
	at := max(home.fitSince, v.since).Add(m.cfg.FailbackAfter)
	m.due(at)
	return m.now >= at
}

// startMove begins a move; to is nil where the placement decides.
func (m *Machine) startMove(v *vip, cause Cause, to *peer) {
	v.move = &move{cause: cause, noticed: m.now, tried: make([]bool, len(m.peers)), only: to != nil}
	if cause == CauseFailback && to == nil {
		to = m.peer(v.Prefer[0])
		v.move.only = true
	}
	if to == nil {
		m.nextSuccessor(v)
		return
	}
	v.move.why = WhyAsked
	if cause == CauseFailback {
		v.move.why = WhyPrefer
	}
	m.askReady(v, to)
}

func (m *Machine) askReady(v *vip, to *peer) {
	mv := v.move
	mv.to, mv.started, mv.heard, mv.pending = to, m.now, m.now, false
	mv.tried[to.index] = true
	m.tell(Transition{Kind: MoveStarted, VIP: v.ID, Epoch: v.epoch, Node: m.self.Name, Successor: to.Name, Cause: mv.cause})
	m.sendPrepare(v)
	m.beatNow = true
}

func (m *Machine) sendPrepare(v *vip) {
	mv := v.move
	mv.sent = m.now
	m.send(mv.to, Prepare{VIP: v.ID, Epoch: v.epoch, Cause: mv.cause, Ago: m.now.Sub(mv.noticed)})
}

// nextSuccessor asks the next in rank; when none is left the VIP stays, and is
// tried again later.
func (m *Machine) nextSuccessor(v *vip) {
	if !v.move.only {
		for _, r := range m.rank(v, m.loads(), m.self) {
			if r.class == classDrained && v.move.cause == CauseDrain {
				break // from one drained node to another helps nobody
			}
			if c := v.move.cause; (c == CauseVerify || c == CauseDrain || c == CauseLink) && m.excludes(r.node, v) {
				continue // it would come straight back
			}
			if !v.move.tried[r.node.index] {
				v.move.why = r.why
				m.askReady(v, r.node)
				return
			}
		}
	}
	m.endMove(v)
}

// endMove keeps the VIP here.
func (m *Machine) endMove(v *vip) {
	mv := v.move
	v.move = nil
	v.moveAfter = m.now.Add(m.backoff())
	m.due(v.moveAfter)
	text := mv.lastFail
	if text == "" {
		text = "no other node can take it"
	}
	if mv.to != nil || mv.only {
		m.tell(Transition{Kind: MoveFailed, VIP: v.ID, Epoch: v.epoch, Node: m.self.Name, Cause: mv.cause, Text: text})
	}
	m.failCommands(v, text)
}

// carryMove repeats the prepare, and passes on to the next in rank when the
// successor is silent or too slow.
func (m *Machine) carryMove(v *vip) {
	mv := v.move
	silent := mv.heard.Add(m.cfg.Lease / 2)
	late := mv.started.Add(m.cfg.PrepareTimeout + m.cfg.Lease/2)
	switch {
	case m.now >= silent:
		mv.lastFail = fmt.Sprintf("%s does not answer", mv.to.Name)
	case m.now >= late:
		mv.lastFail = fmt.Sprintf("%s was not ready within %s", mv.to.Name, m.cfg.PrepareTimeout+m.cfg.Lease/2)
	default:
		m.due(silent)
		m.due(late)
		next := mv.sent.Add(m.pace())
		if mv.pending {
			next = mv.sent.Add(min(m.cfg.Heartbeat, m.cfg.Lease/6))
		}
		if m.now >= next {
			m.sendPrepare(v)
			next = m.now.Add(m.pace())
		}
		m.due(next)
		return
	}
	m.nextSuccessor(v)
}

// onReady lets go once the successor is ready. A refusal passes on to the next.
func (m *Machine) onReady(p *peer, r Ready) {
	v := m.known[r.VIP]
	if v == nil || v.phase != holding || v.move == nil || v.move.to != p || r.Epoch > v.epoch || r.Epoch < v.first {
		return
	}
	mv := v.move
	mv.heard = m.now
	switch {
	case r.Refused != "":
		mv.lastFail = fmt.Sprintf("%s refused: %s", p.Name, r.Refused)
		m.nextSuccessor(v)
	case r.Pending:
		mv.pending = true
	case r.Nonce != 0:
		mv.readyAt = m.now
		m.letGo(v, Release{Successor: p.Name, SuccessorInstance: p.instance, Nonce: r.Nonce, Lease: r.Lease, Lists: r.Lists, Cause: mv.cause})
	}
}

// onPrepare is the successor's side: it gives up any candidacy of its own and
// gets ready.
func (m *Machine) onPrepare(p *peer, pr Prepare) {
	v := m.known[pr.VIP]
	if v == nil {
		return
	}
	v.saw(pr.Epoch)
	if v.phase == holding && pr.Epoch > v.epoch {
		m.letGo(v, Release{Cause: CauseCrash}) // its sender holds it (§4.2)
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
	if e.Failed == "" {
		r.at = m.now
		r.nonce = Nonce(m.rng.Uint64() | 1)
	}
	m.sayReady(v)
}

// succeed takes over on a release that names this node. The old holder's vote
// counts if it was its own, this node's if it held a grant for the old holder,
// and that of the voter who passed the word on. Its lease counts from the
// moment it said ready (§4.4).
func (m *Machine) succeed(v *vip, r Release, by *peer) {
	e := r.Epoch + 1
	if r.SuccessorInstance != m.instance || e <= v.givenUp || v.phase == unbinding || v.phase == holding {
		return
	}
	if v.phase == asking {
		return // above this epoch already; to give that up now would release these grants too
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

// onPassed is a voter's word that its grant is now ours, with the whole
// release in it.
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

// pendingRelease is a release on its way: repeated until every voter has
// acknowledged it, or its grants have ended by themselves.
type pendingRelease struct {
	r       Release
	missing []bool // by peer index
	left    int
	sent    Instant
	end     Instant
}

// releaseTo sends a release to every voter, and to the successor.
func (m *Machine) releaseTo(v *vip, r Release) {
	pr := &pendingRelease{r: r, missing: make([]bool, len(m.peers)), end: m.now.Add(m.cfg.Lease)}
	for _, p := range m.peers {
		if p != m.self && (m.lists.Active.Has(p.Name) || p.Name == r.Successor) {
			pr.missing[p.index] = true
			pr.left++
		}
	}
	if pr.left == 0 {
		return
	}
	m.releases = append(m.releases, pr)
	m.putRelease(pr)
}

func (m *Machine) putRelease(pr *pendingRelease) {
	pr.sent = m.now
	for i, missing := range pr.missing {
		if missing {
			m.send(m.peers[i], pr.r)
		}
	}
}

func (m *Machine) repeatReleases() {
	keep := m.releases[:0]
	for _, pr := range m.releases {
		if pr.left == 0 || m.now >= pr.end {
			continue
		}
		if m.now >= pr.sent.Add(m.pace()) {
			m.putRelease(pr)
		}
		m.due(pr.sent.Add(m.pace()))
		keep = append(keep, pr)
	}
	clear(m.releases[len(keep):])
	m.releases = keep
}

func (m *Machine) onReleased(p *peer, r Released) {
	for _, pr := range m.releases {
		if pr.r.VIP == r.VIP && pr.r.Epoch == r.Epoch && pr.missing[p.index] {
			pr.missing[p.index] = false
			pr.left--
		}
	}
}

// giveUpAtStop lets go of what nobody took in time when the agent has to end.
func (m *Machine) giveUpAtStop() {
	if !m.stopping {
		return
	}
	left := len(m.releases)
	for _, v := range m.vips {
		if v.phase == holding && (m.now >= m.stopBy || v.move == nil) {
			m.letGo(v, Release{Cause: CauseStop})
		}
		if v.phase == holding || v.phase == unbinding {
			left++
		}
	}
	if left == 0 {
		m.eff.Stopped = true
		m.answerCommand(m.stopID, "")
	}
	m.due(max(m.stopBy, m.now.Add(m.pace())))
}
