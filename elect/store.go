package elect

import (
	"maps"
	"time"
)

const (
	// seqBlock is how many sequence numbers one store of the bound covers.
	seqBlock = 1 << 20
	// durableEvery is how often, at most, higher epochs alone cause a disk write.
	durableEvery = 10 * time.Second
)

func (m *Machine) restoreDurable(d *Durable) {
	m.lists.File = m.fileList()
	if d != nil {
		m.durable = *d
		m.durable.Highest = maps.Clone(d.Highest)
		m.durable.Version = 0
		m.stored = m.durable
		m.lists.Active = d.Active
	}
	m.restoreKept()
	if m.durable.Highest == nil {
		m.durable.Highest = map[VIPID]Epoch{}
	}
	m.quietUntil = m.now.Add(max(m.cfg.Lease, m.durable.LongestLease))
	m.noteLease(m.cfg.Lease)
	for id, e := range m.durable.Highest {
		if v := m.known[id]; v != nil {
			v.saw(e)
		}
	}
}

func (m *Machine) fileList() VoterList {
	var names []Node
	for _, n := range m.cfg.Nodes {
		if n.Voter {
			names = append(names, n.Name)
		}
	}
	return NewVoterList(names...)
}

// noteLease keeps the longest lease ever seen, for the quiet time (§4.5).
func (m *Machine) noteLease(d time.Duration) {
	if d > m.durable.LongestLease {
		m.durable.LongestLease = d
		m.leaseFrom = m.durable.Version + 1
		m.durableDue = true
	}
}

func (m *Machine) longestLease() time.Duration { return max(m.cfg.Lease, m.durable.LongestLease) }

// restoreRuntime honours the grants it finds to their ends, or for one full lease where
// the end is not known. It goes on holding what was held if nothing of the lease is
// missing (§4.5).
func (m *Machine) restoreRuntime(r Restored, instance Instance) {
	if r.Runtime == nil {
		m.instance = instance
		m.dirty = true
		return
	}
	m.quietUntil = min(m.quietUntil, r.Runtime.QuietUntil)
	m.frozenUntil = min(r.Runtime.FrozenUntil, m.now.Add(MaxFreeze))
	m.instance = r.Runtime.Instance
	m.seq, m.seqBound = r.Runtime.SeqBound, r.Runtime.SeqBound
	for id, s := range r.Runtime.VIPs {
		if id == lockPrefix {
			m.lockFloor = s.Barred
			continue
		}
		v := m.leased(id)
		if v == nil {
			m.honour(id, s)
			continue
		}
		if v.Lock && s.Asked > 0 {
			v.lock.notBefore = m.now.Add(m.longestLease())
		}
		v.barred, v.givenUp, v.asked = s.Barred, s.GivenUp, s.Asked
		v.saw(v.asked)
		if s.Grant != nil {
			g := *s.Grant
			v.grant = m.restoreGrant(id, g, r.Granted)
			v.seenHeld = true
			v.saw(g.Epoch)
			v.lastHeld = g.Holder
		}
	}
	for _, h := range r.Held {
		if v := m.known[h.VIP]; v != nil && h.Epoch > v.givenUp && h.Until > m.now {
			m.holdOn(v, h)
		}
	}
	for _, v := range m.vips {
		if v.phase != holding {
			v.givenUp = max(v.givenUp, v.asked)
		}
	}
}

// restoreGrant sets the end of a grant that was found. An end under another epoch is
// another grant's.
func (m *Machine) restoreGrant(id VIPID, g Grant, ends []GrantEnd) *Grant {
	g.until = m.now.Add(g.Lease)
	for _, e := range ends {
		if e.VIP == id && e.Epoch == g.Epoch {
			g.until = min(g.until, e.Until)
		}
	}
	return &g
}

// holdOn takes up a lease that outlived the agent. Our own asks will cut the voters'
// grants down to this configuration's lease, so a longer lease is cut down first.
func (m *Machine) holdOn(v *vip, h HeldVIP) {
	v.phase, v.epoch, v.first, v.held, v.since = holding, h.Epoch, h.Epoch, h.Epoch, h.Since
	v.until = min(h.Until, m.now.Add(Usable(m.cfg.Lease)))
	v.asked = max(v.asked, h.Epoch)
	v.seenHeld, v.lastHeld, v.why, v.checked, v.verified, v.wanted = true, m.self.Name, WhyHolds, true, true, true
	v.saw(h.Epoch)
}

// store puts the records that must outlive the agent into the effects. The runtime record
// is written before anything leaves, the durable record in the background.
func (m *Machine) store() {
	if m.dirty {
		m.dirty = false
		m.eff.Runtime = m.runtime()
	}
	if m.now.Sub(m.durableAt) >= durableEvery && m.highestRose() {
		m.durableDue = true
	}
	if !m.durableDue {
		return
	}
	m.durableDue, m.durableAt = false, m.now
	m.durable.Version++
	for _, v := range m.vips {
		if e := v.top(); e > m.durable.Highest[v.highestKey()] {
			m.durable.Highest[v.highestKey()] = e
		}
	}
	d := m.durable
	d.Highest = maps.Clone(d.Highest)
	d.Kept = m.keptRecord()
	m.eff.Durable = &d
}

func (m *Machine) highestRose() bool {
	for _, v := range m.vips {
		if v.top() > m.durable.Highest[v.highestKey()] {
			return true
		}
	}
	return false
}

func (m *Machine) runtime() *Runtime {
	r := &Runtime{Instance: m.instance, SeqBound: m.seqBound, VIPs: maps.Clone(m.strangers), FrozenUntil: m.frozenUntil}
	if m.now < m.quietUntil {
		r.QuietUntil = m.quietUntil
	}
	if m.lockFloor > 0 {
		r.VIPs[lockPrefix] = RuntimeVIP{Barred: m.lockFloor}
	}
	for _, v := range m.everyVIP() {
		if s := v.record(); s != (RuntimeVIP{}) {
			r.VIPs[v.ID] = s
		}
	}
	return r
}

// record is the part of a VIP's state that must outlive the agent.
func (v *vip) record() RuntimeVIP {
	s := RuntimeVIP{Barred: v.barred, GivenUp: v.givenUp, Asked: v.asked}
	if v.grant != nil {
		g := *v.grant
		s.Grant = &g
	}
	return s
}
