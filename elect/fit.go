package elect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// selfHealth is what a node tracks of its own PBX: how long it must stay
// healthy before it ranks like the others again (§4.7).
type selfHealth struct {
	healthy   bool
	since     Instant // when healthy last changed
	relapses  int
	heldUntil Instant
	never     bool // no good answer since the start
	boot      bool // heldUntil comes from a start, not from a relapse
	joined    bool // the cluster held VIPs before this agent started
}

// maxHoldDown is where the doubling per relapse ends (reference.toml, hold_down).
const maxHoldDown = 10 * time.Minute

func (h *selfHealth) init(m *Machine) { h.never = true; h.since = m.now }

// update follows this node's own fitness. The holder is fit again at its first
// good answer; another node is held down, longer with each relapse.
func (h *selfHealth) update(m *Machine, healthy bool) {
	if healthy == h.healthy {
		if healthy && h.relapses > 0 && m.now.Sub(h.since) > maxHoldDown {
			h.relapses = 0
		}
		return
	}
	h.healthy, h.since = healthy, m.now
	m.beatNow = true
	if !healthy {
		return
	}
	first := h.never
	h.never = false
	if m.holdsAny() {
		return
	}
	d := m.cfg.HoldDown
	for i := 0; i < h.relapses && d < maxHoldDown; i++ {
		d *= 2
	}
	if !first {
		h.relapses++
	}
	h.boot = first
	h.heldUntil = m.now.Add(min(d, max(maxHoldDown, m.cfg.HoldDown)))
}

func (m *Machine) holdsAny() bool {
	for _, v := range m.vips {
		if v.phase == holding && !v.Role {
			return true
		}
	}
	return false
}

func (m *Machine) holds(p *peer) bool {
	if p == m.self {
		return slices.ContainsFunc(m.vips, func(v *vip) bool { return v.phase == holding && !v.Lock })
	}
	return holdsAny(p.beat.Holds)
}

func holdsAny(holds []Hold) bool {
	return slices.ContainsFunc(holds, func(h Hold) bool { _, lock := h.VIP.Lock(); return !lock })
}

func (m *Machine) heldDown(p *peer) bool {
	if p != m.self {
		return p.beat.HeldDown
	}
	h := &m.health
	m.due(h.heldUntil)
	return m.now < h.heldUntil && (h.joined || !h.boot) && !m.holdsAny()
}

// sickened reports whether this node holds no VIP and its PBX was well once but, as far
// as this node knows, is not now. The others may see the PBX recover before this node
// does, and must not take it for a PBX that was well all along. So this node says that it
// is held down until it really is.
func (m *Machine) sickened() bool {
	return !m.health.healthy && !m.health.never && !m.holdsAny()
}

func (m *Machine) drained(p *peer) bool {
	if p == m.self {
		return m.durable.Drained || m.stopping
	}
	return p.beat.Drained
}

// unfit says why p's PBX cannot serve as seen from here; empty if it can (§4.7). Being
// drained is no reason: a drained node is able, it is only not wanted.
func (m *Machine) unfit(p *peer) string {
	if !p.Holder {
		return "" // a witness runs no PBX
	}
	if m.frozen(p) && m.holds(p) {
		return "" // a frozen node that holds nothing has nothing to lose by its verdicts
	}
	own := m.verdict(p, p)
	switch own {
	case SIPUnknown:
		// A holder's agent that has just restarted knows nothing against its
		// PBX: moving what it holds would be a needless move (§4.5).
		if !m.holds(p) {
			return "no SIP answer since its start"
		}
	case SIPRising:
		if !m.holds(p) { // the holder is fit again at its first good answer
			return "its SIP answers again, but not often enough yet"
		}
	case SIPUnready:
		return "its own checks say no"
	case SIPRefused:
		return "its SIP port refuses"
	}
	all := m.observers(p)
	switch {
	case own == SIPSilent && all.live == 0:
		return "no SIP answer, and nobody else to ask"
	case own == SIPSilent && all.doubted > 0:
		return fmt.Sprintf("no SIP answer, nor for %s", strings.Join(m.whoSay(p, SIPState.Doubted), ", "))
	case own != SIPSilent && all.live > 0 && all.down == all.live && all.live >= (len(m.peers)-1)/2+1:
		return fmt.Sprintf("no SIP answer for %s", strings.Join(m.whoSay(p, SIPState.Down), ", "))
	}
	return ""
}

// isFit reports whether p is alive, able to serve calls and not drained (§2).
func (m *Machine) isFit(p *peer) bool { return p.alive && !m.drained(p) && m.unfit(p) == "" }

// onHealth takes this node's own verdict. A change is told to the peers at once, because
// silence makes a node unfit only with the word of another node, if there is one.
func (m *Machine) onHealth(e Health) {
	p := m.peer(e.Node)
	if p == nil {
		return
	}
	before := m.observed(p)
	p.seen, p.seenSince, p.seenLast = e.SIP, cmp.Or(e.Since, m.now), cmp.Or(e.Last, m.now)
	m.beatNow = m.beatNow || m.observed(p) != before
}

// suspect has this node probe what p newly doubts, p's own PBX included: a suspicion
// makes all nodes probe at once (§4.7). p's PBX is also probed when p says that it is
// well again: if our doubt outlived that by a probing interval, a short sickness of all
// would look like p's own.
func (m *Machine) suspect(p *peer, before, now Heartbeat) {
	if now.SIP.Doubted() != before.SIP.Doubted() {
		m.eff.Probe = append(m.eff.Probe, p.Name)
	}
	for _, ob := range now.Observes {
		if o := m.peer(ob.Node); ob.SIP.Doubted() && o != nil && (p.views == nil || !p.views[o.index].Doubted()) {
			m.eff.Probe = append(m.eff.Probe, ob.Node)
		}
	}
}

// observe brings every derived view up to date and tells what changed.
func (m *Machine) observe() {
	if !m.sameAsBefore() {
		m.observeNodes()
	}
	for _, v := range m.vips {
		m.observeClaim(v)
	}
}

func (m *Machine) observeNodes() {
	due := m.deadline
	m.deadline = m.now.Add(time.Hour)
	for _, p := range m.peers {
		m.observePeer(p)
	}
	m.observeFreeze()
	if !m.frozen(m.self) { // a planned restart is no relapse
		m.health.update(m, m.self.Holder && m.unfit(m.self) == "")
	}
	m.observeFitness()
	m.observeQuorum()
	m.seen.at, m.seen.due = m.now, m.deadline
	m.deadline = min(m.deadline, due)
}

// sight is the newest observation of all nodes, and how long it holds.
type sight struct {
	at    Instant
	due   Instant // by then time alone changes something
	stale bool    // something has changed since
	calm  *peer   // the sender of this step's packet, if the packet said nothing new
	held  int     // what this node held, as the sum of holdsAs
}

// holdsAs is what v adds to the sum of what is held, as far as fitness depends on it:
// VIPs count one, roles 1<<16, locks nothing.
func (v *vip) holdsAs() int {
	switch {
	case v.Lock:
		return 0
	case v.Role:
		return 1 << 16
	}
	return 1
}

// sameAsBefore reports whether this step's event changes nothing about the nodes: it is a
// packet of a live node with nothing new in it. Most steps are such packets. Their number
// grows with the cluster, so the cost of each one must not.
func (m *Machine) sameAsBefore() bool {
	s := &m.seen
	p := s.calm
	if p == nil || !p.alive || s.stale || m.now >= s.due || m.now >= s.at.Add(m.cfg.Heartbeat/2) || len(m.commands) > 0 || m.stopping {
		s.stale = p == nil // what this event leads to shows in the next step
		return false
	}
	by := p.byRelay
	m.observePeer(p)
	if p.byRelay != by {
		return false
	}
	m.due(s.due)
	return true
}

// nothingNew reports whether b says nothing about p's fitness that p's heartbeat before
// did not say. A freeze is always something new.
func (m *Machine) nothingNew(p *peer, b Heartbeat) bool {
	o := &p.beat
	return p.heard && o.SIP == b.SIP && o.Drained == b.Drained && o.HeldDown == b.HeldDown && o.Frozen == 0 && b.Frozen == 0 &&
		o.Config == b.Config && o.Lease == b.Lease && holdsAny(o.Holds) == holdsAny(b.Holds)
}

// silence is how long a node may be silent before it counts as gone.
func (m *Machine) silence(p *peer) time.Duration { return max(m.cfg.Lease, p.beat.Lease) }

func (m *Machine) observePeer(p *peer) {
	if p == m.self {
		return
	}
	m.observeRelay(p)
	end := p.lastHeard.Add(m.silence(p))
	alive := p.heard && m.now < end
	if alive {
		m.due(end)
	}
	if alive != p.alive {
		m.setAlive(p, alive)
		m.noteReached(p, false, nil) // nobody knows what happened meanwhile
		kind := NodeDown
		if alive {
			kind = NodeUp
		}
		m.tell(Transition{Kind: kind, Node: p.Name, Noticed: p.lastHeard})
	}
	if differs := alive && p.beat.Config != m.cfg.Digest; differs != p.differs && alive {
		p.differs = differs
		kind := ConfigSame
		if differs {
			kind = ConfigDiffers
		}
		m.tell(Transition{Kind: kind, Node: p.Name})
	}
}

func (m *Machine) observeFitness() {
	anyFit, anyAlive, more := false, false, false
	for _, p := range m.peers {
		why := ""
		if p.alive {
			why = m.unfit(p)
		}
		fit := p.alive && !m.drained(p) && why == ""
		if fit && !p.fit {
			p.fitSince, more = m.now, true
		}
		if p.alive && p.Holder {
			m.tellFitness(p, why)
			anyAlive = true
			// A drained node is able: an operator's wish raises no alarm. While all are
			// unfit, a node whose own probes are still unanswered does not end the alarm,
			// even if no other node confirms its silence any more: its next answer only
			// makes it a node that does not answer often enough yet.
			anyFit = anyFit || why == "" && !(m.allUnfit && m.verdict(p, p) == SIPSilent)
		}
		if why != "" && p.unfit == "" {
			p.unfitSince = m.now
		}
		p.fit, p.unfit = fit, why
	}
	if more {
		m.moveSoon()
		m.judgeAgain()
	}
	m.everFit = m.everFit || anyFit || m.now >= m.started.Add(m.cfg.Settle)
	if all := anyAlive && !anyFit && m.everFit; all != m.allUnfit {
		m.allUnfit = all
		kind := AllUnfitOver
		if all {
			kind = AllUnfit
		} else {
			m.allUnfitEnd = m.now
		}
		m.tell(Transition{Kind: kind})
	}
}

// recovering reports whether all nodes are sick, or were until lately. A sickness of all
// does not end everywhere at once: for settle after it, at least a lease, nobody moves
// for being the later one to recover.
func (m *Machine) recovering() bool {
	if m.allUnfit || m.allUnfitEnd == 0 {
		return m.allUnfit
	}
	m.due(m.recovered())
	return m.now < m.recovered()
}

// recovered is when the time after the last sickness of all is over.
func (m *Machine) recovered() Instant { return m.allUnfitEnd.Add(m.settle()) }

// settle is how long the verdicts about one sickness of all nodes may come apart.
func (m *Machine) settle() time.Duration { return max(m.cfg.Settle, m.cfg.Lease) }

// tellFitness tells a change of p's fitness once. A node that has just started and knows
// nothing of its PBX yet is no news.
func (m *Machine) tellFitness(p *peer, why string) {
	switch {
	case why == "" && !p.toldFit:
		m.tell(Transition{Kind: NodeFit, Node: p.Name})
		p.toldFit = true
	case why != "" && p.toldFit && m.verdict(p, p) != SIPUnknown:
		m.tell(Transition{Kind: NodeUnfit, Node: p.Name, Text: why})
		p.toldFit = false
	}
}

// moveSoon lets moves start at once: a node that is fit now may take what no node could
// take before.
func (m *Machine) moveSoon() {
	for _, v := range m.vips {
		v.moveAfter = 0
	}
}

func (m *Machine) observeQuorum() {
	n := 0
	for _, p := range m.electorate {
		if p.alive {
			n++
		}
	}
	if q := m.lists.Active != nil && n >= m.lists.Active.Majority(); q != m.quorum {
		m.quorum, m.quorumSince = q, m.now
		if q && m.firstQuorum == 0 {
			m.firstQuorum = m.now
		}
		kind := QuorumLost
		if q {
			kind = QuorumBack
		}
		m.tell(Transition{Kind: kind})
	}
}
