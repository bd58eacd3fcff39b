package elect

import (
	"maps"
	"time"
)

const (
	// seqBlock is how many sequence numbers one store of the bound covers.
	seqBlock = 1 << 20
	// durableEvery is how often epochs alone are worth a disk write.
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

// noteLease keeps the longest lease ever seen, the quiet time of §4.5.
func (m *Machine) noteLease(d time.Duration) {
	if d > m.durable.LongestLease {
		m.durable.LongestLease = d
		m.durableDue = true
	}
}

func (m *Machine) longestLease() time.Duration { return max(m.cfg.Lease, m.durable.LongestLease) }

// restoreRuntime honours the grants it finds for one full lease, and asks on
// for what was held when nothing of the lease is missing (§4.5).
func (m *Machine) restoreRuntime(r Restored, instance Instance) {
	if r.Runtime == nil {
		m.instance = instance
		m.dirty = true
		return
	}
	m.quietUntil = m.now
	m.instance = r.Runtime.Instance
	m.seq, m.seqBound = r.Runtime.SeqBound, r.Runtime.SeqBound
	for id, s := range r.Runtime.VIPs {
		v := m.known[id]
		if v == nil {
			continue
		}
		v.barred, v.givenUp = s.Barred, s.GivenUp
		if s.Grant != nil {
			g := *s.Grant
			g.until = m.now.Add(g.Lease)
			v.grant = &g
			v.seenHeld = true
			v.saw(g.Epoch)
			v.lastHeld = g.Holder
		}
	}
	for _, h := range r.Held {
		if v := m.known[h.VIP]; v != nil && h.Epoch > v.givenUp && h.Until > m.now {
			v.phase, v.epoch, v.first, v.until, v.since = holding, h.Epoch, h.Epoch, h.Until, h.Since
			v.seenHeld, v.lastHeld, v.why, v.checked, v.verified = true, m.self.Name, WhyHolds, true, true
			v.saw(h.Epoch)
		}
	}
}

// store puts what must outlive us into the effects: the runtime record before
// anything leaves, the durable one in its own time.
func (m *Machine) store() {
	if m.dirty {
		m.dirty = false
		m.eff.Runtime = m.runtime()
	}
	if m.durableLazy && m.now.Sub(m.durableAt) >= durableEvery {
		m.durableDue = true
	}
	if !m.durableDue {
		return
	}
	m.durableDue, m.durableLazy, m.durableAt = false, false, m.now
	m.durable.Version++
	for _, v := range m.vips {
		if e := v.top(); e > 0 {
			m.durable.Highest[v.ID] = e
		}
	}
	d := m.durable
	d.Highest = maps.Clone(d.Highest)
	m.eff.Durable = &d
}

func (m *Machine) runtime() *Runtime {
	r := &Runtime{Instance: m.instance, SeqBound: m.seqBound, VIPs: make(map[VIPID]RuntimeVIP, len(m.vips))}
	for _, v := range m.vips {
		s := RuntimeVIP{Barred: v.barred, GivenUp: v.givenUp}
		if v.grant != nil {
			g := *v.grant
			s.Grant = &g
		}
		if s != (RuntimeVIP{}) {
			r.VIPs[v.ID] = s
		}
	}
	return r
}
