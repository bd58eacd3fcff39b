package elect

import (
	"fmt"
	"time"
)

// move is a planned takeover, as the holder runs it (§4.4).
type move struct {
	to       *peer
	cause    Cause
	why      Why
	started  Instant // when this successor was first asked
	sent     Instant // of the last prepare
	heard    Instant // of the last word from the successor
	pending  bool    // the successor has said that it is getting ready
	noticed  Instant
	readyAt  Instant
	tried    []bool // by peer index
	only     bool   // an operator named the successor: no other will do
	lastFail string
}

// steerMoves starts the moves that a rule demands and carries on those under
// way.
func (m *Machine) steerMoves() {
	for _, v := range m.vips {
		if v.ready != nil && !v.ready.running && m.now >= v.ready.asked.Add(m.cfg.PrepareTimeout+m.cfg.Lease) {
			v.ready = nil
		}
		if !v.serves() || v.Lock {
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
		if v.move != nil && m.shared(v) {
			v.move.lastFail = "no node is fit"
			m.endMove(v)
		}
		if v.move != nil {
			m.carryMove(v)
		}
	}
	m.giveUpAtStop()
}

// patience is how long a successor may take to get ready.
func (m *Machine) patience(c Cause) time.Duration {
	d := m.cfg.PrepareTimeout + m.cfg.Lease/2
	if c == CauseCheck {
		d += m.cfg.CheckTimeout
	}
	return d
}

// healed reports whether the sickness that a move runs from is over before anything was
// let go: the holder is fit at its first good answer (§4.7), and no majority lacks
// confidence any more.
//
// Each voter's last word counts, whatever round it is of: a beat begins a new round, in
// which nobody has said anything yet.
func (m *Machine) healed(v *vip) bool {
	if v.move.cause != CauseSIP && v.move.cause != CauseCheck || v.move.only || m.unfit(m.self) != "" {
		return false
	}
	n := 0
	for _, p := range m.electorate {
		if v.votes[p.index].refused == RefusedNoConfidence {
			n++
		}
	}
	return n < m.lists.Active.Majority()
}

// shared reports whether the sickness that a move runs from has turned out to be
// everybody's. Nobody moves for that (§4.7), not even if the successor's next answer is
// good.
func (m *Machine) shared(v *vip) bool {
	return (v.move.cause == CauseSIP || v.move.cause == CauseCheck) && m.recovering()
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
	case m.recovering():
	case m.unfit(m.self) != "" || m.majoritySays(v, RefusedNoConfidence):
		if m.self.seen == SIPUnready {
			return CauseCheck
		}
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
	for _, p := range m.electorate {
		if v.rounds[p.index] && v.votes[p.index].refused == r {
			n++
		}
	}
	return m.lists.Active != nil && n >= m.lists.Active.Majority()
}

// failbackDue reports whether failback is automatic and the first in prefer has been fit
// for long enough.
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
	m.tell(Transition{Kind: MoveStarted, VIP: v.ID, Epoch: v.held, Node: m.self.Name, Successor: to.Name, Cause: mv.cause})
	m.sendPrepare(v)
	m.beatNow = true
}

func (m *Machine) sendPrepare(v *vip) {
	mv := v.move
	mv.sent = m.now
	m.send(mv.to, Prepare{VIP: v.ID, Epoch: v.epoch, Cause: mv.cause, Ago: m.now.Sub(mv.noticed)})
}

// nextSuccessor asks the next node in rank. When none is left the VIP stays, and the move
// is tried again later. A move for SIP skips a node that all others doubt, because it
// would be called unfit next: SIP lost between all nodes, or a sickness of all, is
// noticed at one node after the other.
func (m *Machine) nextSuccessor(v *vip) {
	doubted := false
	if !v.move.only {
		for _, r := range m.rank(v, m.loads(), m.self) {
			if r.class == classDrained && v.move.cause == CauseDrain {
				break // from one drained node to another helps nobody
			}
			if c := v.move.cause; (c == CauseVerify || c == CauseDrain) && m.excludes(r.node, v) {
				continue // the VIP would come straight back
			}
			if v.move.cause == CauseSIP && m.doubtedByAll(r.node) {
				doubted = true
				continue
			}
			if m.cutOff(v) && !m.reaches(r.node, v) {
				continue // nothing says that this one reaches the router
			}
			if !v.move.tried[r.node.index] {
				v.move.why = r.why
				m.askReady(v, r.node)
				return
			}
		}
	}
	untried := v.move.to == nil
	m.endMove(v)
	if doubted && untried {
		v.moveAfter = m.now.Add(m.cfg.Heartbeat)
		m.due(v.moveAfter)
	}
}

// endMove ends a move that failed: the VIP stays here.
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
		m.tell(Transition{Kind: MoveFailed, VIP: v.ID, Epoch: v.held, Node: m.self.Name, Cause: mv.cause, Text: text})
	}
	m.failCommands(v, text)
}

// carryMove repeats the prepare, and asks the next in rank when the successor is silent
// or too slow.
func (m *Machine) carryMove(v *vip) {
	mv := v.move
	if mv.to == nil { // the successor has left the configuration
		m.nextSuccessor(v)
		return
	}
	silent := mv.heard.Add(m.cfg.Lease / 2)
	patience := m.patience(mv.cause)
	late := mv.started.Add(patience)
	switch {
	case m.now >= silent:
		mv.lastFail = fmt.Sprintf("%s does not answer", mv.to.Name)
	case m.now >= late:
		mv.lastFail = fmt.Sprintf("%s was not ready within %s", mv.to.Name, patience)
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

// onReady hands over once the successor is ready. If it refuses, the next in rank is
// asked.
func (m *Machine) onReady(p *peer, r Ready) {
	v := m.known[r.VIP]
	if v == nil || !v.serves() || v.move == nil || v.move.to != p || r.Epoch > v.epoch || r.Epoch < v.first {
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
		m.handOver(v, Release{Successor: p.Name, SuccessorInstance: p.instance, Nonce: r.Nonce, Lease: r.Lease, Lists: r.Lists, Cause: mv.cause})
	}
}
