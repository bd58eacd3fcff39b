package elect

import "time"

// MaxFreeze is the longest a node may be frozen for: an operator who forgets ends
// up with a cluster that watches its PBXes again.
const MaxFreeze = 24 * time.Hour

// frozen: an operator works on p's PBX and has said so. No SIP verdict takes a VIP
// from it meanwhile; leases go on as ever (§4.7).
func (m *Machine) frozen(p *peer) bool {
	end := m.frozenUntil
	if p != m.self {
		end = 0
		if p.beat.Frozen > 0 {
			end = p.lastHeard.Add(p.beat.Frozen)
		}
	}
	m.due(end)
	return m.now < end
}

// frozenFor is how long p stays frozen; 0: it is not.
func (m *Machine) frozenFor(p *peer) time.Duration {
	switch {
	case !m.frozen(p):
		return 0
	case p == m.self:
		return m.frozenUntil.Sub(m.now)
	}
	return p.lastHeard.Add(p.beat.Frozen).Sub(m.now)
}

// setFrozen freezes this node's SIP verdicts, or for 0 ends that.
func (m *Machine) setFrozen(d time.Duration) {
	d = min(d, MaxFreeze)
	was := m.frozen(m.self)
	switch {
	case d > 0:
		m.freezeUntil(m.now.Add(d))
		m.tell(Transition{Kind: Frozen, Node: m.self.Name, Text: "for " + d.Round(time.Second).String()})
	case was:
		m.freezeUntil(0)
		m.thawed("")
	}
}

// freezeUntil is told to the peers, and kept for the next agent, at once.
func (m *Machine) freezeUntil(end Instant) { m.frozenUntil, m.beatNow, m.dirty = end, true, true }

// observeFreeze ends it when its time is over.
func (m *Machine) observeFreeze() {
	if m.frozenUntil != 0 && !m.frozen(m.self) {
		m.freezeUntil(0)
		m.thawed("its time is over")
	}
}

func (m *Machine) thawed(why string) {
	m.tell(Transition{Kind: Thawed, Node: m.self.Name, Text: why})
	m.eff.Probe = append(m.eff.Probe, m.self.Name) // what was looked away from shows at once
	m.judgeAgain()
}
