package elect

import "time"

// relayEvery is how often a heartbeat goes through the gateway while the peer is heard
// directly too. To know that the gateway relays needs no more.
const relayEvery = 200 * time.Millisecond

// relaying reports whether this node talks through the gateway at all.
func (m *Machine) relaying() bool { return m.cfg.Survivor != SurvivorNever }

// heardDirectly reports whether the peer is heard without the gateway's help.
func (m *Machine) heardDirectly(p *peer) bool {
	return p.heard && m.now < p.direct.Add(3*m.cfg.Heartbeat/2)
}

func (m *Machine) relayFresh(p *peer) bool {
	return p.relayed != 0 && m.now < p.relayed.Add(max(m.silence(p), 10*relayEvery))
}

// needsRelay reports whether messages to the peer go through the gateway: the peer is
// silent directly, and heard that way.
func (m *Machine) needsRelay(p *peer) bool {
	return m.relaying() && !m.heardDirectly(p) && m.relayFresh(p)
}

// relayBeat sends the heartbeat through the gateway as well. While all is well that shows
// whether the gateway relays; where nothing else passes, it makes this node heard.
func (m *Machine) relayBeat(p *peer, b Message, asks bool) {
	if !m.relaying() || m.heardDirectly(p) && m.now < p.relaySent.Add(relayEvery) {
		return
	}
	p.relaySent = m.now
	if seq := m.sendBy(true, p, b); asks {
		m.rememberAsk(p, seq)
	}
}

// noteRoute records which way a message came, and reports whether the message counts. A
// relayed heartbeat of a peer that is heard directly does not: it only shows that the
// gateway relays.
func (m *Machine) noteRoute(p *peer, e Received) bool {
	if !e.Relayed {
		m.noteDirect(p)
		return true
	}
	p.relayed = m.now
	_, beat := e.Msg.(Heartbeat)
	return e.Msg != nil && !(beat && m.heardDirectly(p))
}

// noteDirect keeps since when the peer has been heard directly without a break. A break
// is a silence longer than the loss of a few packets explains, or one during which the
// gateway helped. After a break the peer's PBX is probed at once if this node doubts it.
func (m *Machine) noteDirect(p *peer) {
	before := m.observed(p)
	if p.byRelay || m.now >= p.direct.Add(min(m.silence(p), 7*m.cfg.Heartbeat/2)) {
		p.directSince = m.now
		if p.seen.Doubted() {
			m.eff.Probe = append(m.eff.Probe, p.Name)
		}
	}
	p.direct = m.now
	if m.observed(p) != before {
		m.beatNow, m.seen.stale = true, true
	}
}

// observeRelay learns whether the gateway relays between the peer and this node, both
// ways, as long as the peer is heard. When the peer falls silent the last answer stays,
// and the silence is judged by that answer (§4.6).
func (m *Machine) observeRelay(p *peer) {
	switch {
	case !m.relaying():
	case m.relayFresh(p) && p.beat.Relayed:
		p.relay = true
	case m.heardDirectly(p):
		p.relay = false
	}
	p.byRelay = m.needsRelay(p)
}

// observed is this node's own verdict about p's PBX, as far as it counts. Probes take the
// direct path and are cut with it. So a verdict of silence counts only if a packet came
// directly since the last of its probes began. After a break of the path it counts only
// if all its probes began after the break; if only some did, it is a suspicion. A refusal
// came by the direct path itself, so it only has to be newer than the break.
func (m *Machine) observed(p *peer) SIPState {
	switch {
	case p == m.self || !p.seen.Doubted():
	case p.direct < p.seenLast && p.seen != SIPRefused, p.seenLast < p.directSince:
		return SIPUnknown
	case p.seenSince < p.directSince:
		return SIPSuspect
	}
	return p.seen
}
