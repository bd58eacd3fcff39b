package elect

import "time"

// relayEvery is how often a heartbeat goes through the gateway while the peer
// is heard directly too: to know that the gateway relays needs no more.
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

// needsRelay reports whether messages to the peer go through the gateway: it is
// silent otherwise, and heard that way.
func (m *Machine) needsRelay(p *peer) bool {
	return m.relaying() && !m.heardDirectly(p) && m.relayFresh(p)
}

// relayBeat sends the heartbeat through the gateway as well: to learn whether
// that works while all is well, and to be heard where nothing else passes.
func (m *Machine) relayBeat(p *peer, b Message, asks bool) {
	if !m.relaying() || m.heardDirectly(p) && m.now < p.relaySent.Add(relayEvery) {
		return
	}
	p.relaySent = m.now
	if seq := m.sendBy(true, p, b); asks {
		m.rememberAsk(p, seq)
	}
}

// noteRoute keeps by which way a message came, and reports whether it counts.
// Of a peer that is heard directly a relayed heartbeat only shows that the
// gateway relays: it says nothing new.
func (m *Machine) noteRoute(p *peer, e Received) bool {
	if !e.Relayed {
		m.noteDirect(p)
		return true
	}
	p.relayed = m.now
	_, beat := e.Msg.(Heartbeat)
	return e.Msg != nil && !(beat && m.heardDirectly(p))
}

// noteDirect keeps since when the peer has been heard directly without a break: one
// longer than the loss of a few packets explains, or that the gateway helped over. After
// it its PBX is asked anew at once, where it is said to be sick.
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

// observeRelay learns whether the gateway relays between the peer and us, both
// ways, as long as the peer is there to tell. What was so when it fell silent is
// what its silence is judged by (§4.6).
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

// observed is this node's own verdict of a PBX. Probes are cut with everything else that
// goes to a node directly: their silence says something of its PBX only where something
// else came from the node meanwhile, and nothing once the way was cut, until as many have
// been repeated as the verdict takes; the first of them makes it a suspicion. A refusal
// has come that way itself.
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
