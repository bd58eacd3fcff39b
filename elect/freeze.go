package elect

import "time"

// MaxFreeze is the longest a node may be frozen for. If an operator forgets the freeze,
// the cluster watches the PBX again after that time.
const MaxFreeze = 24 * time.Hour

// frozen reports whether an operator works on p's PBX and has said so. Meanwhile no SIP
// verdict takes a VIP from p; leases go on as usual (§4.7).
func (m *Machine) frozen(p *peer) bool {
	end := m.frozenUntil
	if p != m.self {
		end = 0
		if p.beat.Frozen > 0 {
			end = p.beatAt.Add(p.beat.Frozen)
		}
	}
	m.due(end)
	return m.now < end
}

// frozenFor is how long p stays frozen; 0: it is not frozen.
func (m *Machine) frozenFor(p *peer) time.Duration {
	switch {
	case !m.frozen(p):
		return 0
	case p == m.self:
		return m.frozenUntil.Sub(m.now)
	}
	return p.beatAt.Add(p.beat.Frozen).Sub(m.now)
}

// setFrozen freezes this node's SIP verdicts for d; 0 ends the freeze.
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

// freezeUntil sets the end of the freeze. Peers are told at once, and it is stored for
// the next agent.
func (m *Machine) freezeUntil(end Instant) { m.frozenUntil, m.beatNow, m.dirty = end, true, true }

// observeFreeze ends the freeze when its time is over.
func (m *Machine) observeFreeze() {
	if m.frozenUntil != 0 && !m.frozen(m.self) {
		m.freezeUntil(0)
		m.thawed("its time is over")
	}
}

func (m *Machine) thawed(why string) {
	m.tell(Transition{Kind: Thawed, Node: m.self.Name, Text: why})
	m.eff.Probe = append(m.eff.Probe, m.self.Name) // what the freeze ignored shows at once
	m.judgeAgain()
}
