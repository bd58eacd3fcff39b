package elect

import "slices"

// Reconfigure gives the machine another configuration while it runs (a reload, §4.9). The
// machine is then where a restart of the agent with that file would be, except that it
// holds what it held and knows what it heard of the others. A configuration that lacks
// this node, or that is another node's, changes nothing.
//
// A VIP that the new configuration lacks is let go in order: it stays in Want, with Hold
// false, until the kernel has said that its address is gone.
type Reconfigure struct{ Config Config }

func (Reconfigure) event() {}

func (m *Machine) reconfigure(cfg Config) {
	named := func(n NodeConfig) bool { return n.Name == cfg.Self }
	if cfg.Self != m.cfg.Self || !slices.ContainsFunc(cfg.Nodes, named) {
		return
	}
	old := m.cfg
	m.cfg = cfg
	if !slices.Equal(old.Nodes, cfg.Nodes) {
		m.reconfigureNodes()
	}
	for _, p := range m.peers {
		p.reread = p.reread || old.Digest != cfg.Digest // what the peer says means something else now
	}
	m.reconfigureVIPs()
	if old.Lease != cfg.Lease {
		m.changeLease()
	}
	if file := m.fileList(); !file.Equal(m.lists.File) {
		// As after a start, the rules of §4.9 have to hold for a full lease from now. An
		// operator's adopt was about the list before.
		m.lists.File, m.lists.may, m.adopting = file, false, false
	}
	m.beatNow = true
}

// changeLease adapts what is held to another lease. Grants carry their own length, so the
// other nodes need not change with this one. Our asks will cut the voters' grants down to
// a shorter lease, so what is held is cut down first. No vote that was asked for under
// one lease may count for another.
func (m *Machine) changeLease() {
	m.noteLease(m.cfg.Lease)
	for _, v := range m.vips {
		if v.phase == holding {
			v.until = min(v.until, m.now.Add(Usable(m.cfg.Lease)))
		}
	}
	m.voidQuestions()
}

// reconfigureNodes keeps what is known of the nodes that stay. What is kept by a node's
// index in the file moves to the new index or is voided. A holder keeps its lease
// meanwhile, and asks again at once.
func (m *Machine) reconfigureNodes() {
	before := m.peers
	place := make([]int, len(before)) // by old index: the new one, -1 for none
	m.peers = make([]*peer, len(m.cfg.Nodes))
	for i, n := range m.cfg.Nodes {
		m.peers[i] = &peer{}
		for _, p := range before {
			if p.Name == n.Name {
				m.peers[i] = p
			}
		}
		m.peers[i].NodeConfig = n
	}
	for i, p := range before {
		place[i] = slices.Index(m.peers, p)
	}
	for i, p := range m.peers {
		p.index = i
	}
	m.namePeers()
	m.seatVoters()
	m.recountViews(place)
	m.askItem[0] = make([][]AskItem, len(m.peers))
	m.askItem[1] = make([][]AskItem, len(m.peers))
	for _, v := range m.everyVIP() {
		m.resettle(v, place)
	}
	m.voidQuestions()
	for _, pr := range m.releases {
		pr.missing, pr.left = m.replace(pr.missing, place)
	}
	m.dropCommands(func(p *peer) bool { return p != nil && m.peer(p.Name) != p })
	m.endFlushes()
}

// resettle moves what v keeps by peer index to the new indices. Votes are dropped.
func (m *Machine) resettle(v *vip, place []int) {
	gone := func(p *peer) bool { return p != nil && m.peer(p.Name) != p }
	v.votes, v.rounds, v.reached = make([]vote, len(m.peers)), make([]bool, len(m.peers)), make([]Instant, len(m.peers))
	if gone(v.claim.by) {
		v.noticed = v.claim.heard
		m.dropClaim(v)
	}
	if v.passing != "" && m.peer(v.passing) == nil {
		v.passing = ""
	}
	if mv := v.move; mv != nil {
		mv.tried, _ = m.replace(mv.tried, place)
		if gone(mv.to) {
			mv.lastFail, mv.to = string(mv.to.Name)+" has left the configuration", nil
		}
	}
}

// replace moves marks by peer index to the new indices, and counts them.
func (m *Machine) replace(marks []bool, place []int) (moved []bool, n int) {
	moved = make([]bool, len(m.peers))
	for i, marked := range marks {
		if marked && place[i] >= 0 {
			moved[place[i]] = true
			n++
		}
	}
	return moved, n
}

// reconfigureVIPs takes up new VIPs and lets go of those that left.
func (m *Machine) reconfigureVIPs() {
	before := m.everyVIP()
	m.vips, m.known, m.leaving = nil, map[VIPID]*vip{}, nil
	for i, c := range m.cfg.VIPs {
		v := find(before, c.ID)
		if v == nil {
			v = newVIP(c, i, len(m.peers), m.now)
			m.recall(v)
		}
		v.VIPConfig, v.index = c, i
		m.vips = append(m.vips, v)
		m.known[c.ID] = v
	}
	for _, v := range before {
		switch {
		case m.known[v.ID] != nil:
		case v.Lock:
			m.vips = append(m.vips, v)
			m.known[v.ID] = v
		default:
			m.part(v)
		}
	}
}

func find(all []*vip, id VIPID) *vip {
	for _, v := range all {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// everyVIP is every VIP, role and lock that this node knows, and the VIPs that are
// leaving.
func (m *Machine) everyVIP() []*vip {
	if len(m.leaving) == 0 {
		return m.vips // nearly always, and in every step
	}
	return slices.Concat(m.vips, m.leaving)
}

// maxStrangers is how many VIPs the durable record may name before no further VIP that
// only other nodes have is noted.
const maxStrangers = 1024

// noteStranger notes the epoch of a VIP that only other nodes have yet, so that its
// epochs go on rising once it is in this configuration too. The epoch reaches the disk
// with the next record.
func (m *Machine) noteStranger(h Hold) {
	known, seen := m.durable.Highest[h.VIP]
	if h.Epoch > known && (seen || len(m.durable.Highest) < maxStrangers) {
		m.durable.Highest[h.VIP] = h.Epoch
	}
}

// recall gives a VIP that comes into the configuration, or comes back, what this node has
// promised and seen of it.
func (m *Machine) recall(v *vip) {
	v.saw(m.durable.Highest[v.ID])
	s, known := m.strangers[v.ID]
	if !known {
		return
	}
	delete(m.strangers, v.ID)
	v.barred, v.givenUp, v.asked, v.grant = s.Barred, max(s.GivenUp, s.Asked), s.Asked, s.Grant
	v.saw(v.asked)
	if v.grant != nil {
		v.saw(v.grant.Epoch)
		v.seenHeld, v.lastHeld = true, v.grant.Holder
	}
}

// part lets go of a VIP that has left the configuration.
func (m *Machine) part(v *vip) {
	m.leaving = append(m.leaving, v)
	m.failCommands(v, "it has left the configuration")
	switch v.phase {
	case holding:
		v.move = nil
		m.letGo(v, Release{Cause: CauseMove})
	case asking, prevoting:
		m.drop(v)
	}
	v.ready, v.claim, v.retire = nil, claim{}, 0
}

// forgetLeft forgets the VIPs that have left and are unbound. It keeps what this node has
// promised, so that nobody is asked for the same epoch twice if the VIP comes back.
func (m *Machine) forgetLeft() {
	m.leaving = slices.DeleteFunc(m.leaving, func(v *vip) bool {
		if v.phase == unbinding {
			return false
		}
		if s := v.record(); s != (RuntimeVIP{}) {
			m.strangers[v.ID] = s
		}
		if e := v.top(); e > 0 {
			m.durable.Highest[v.ID] = e
			m.durableDue = true
		}
		m.dirty = true
		return true
	})
}

// dropCommands fails what waits for a node that has left.
func (m *Machine) dropCommands(gone func(*peer) bool) {
	m.commands = slices.DeleteFunc(m.commands, func(c *command) bool {
		left := gone(c.node)
		for _, mv := range c.moves {
			left = left || gone(mv.to)
		}
		if left {
			m.answerCommand(c.id, "the node has left the configuration")
		}
		return left
	})
}

// honour keeps what an earlier life of this agent promised for a VIP that this
// configuration lacks. A grant counts for one full lease from now.
func (m *Machine) honour(id VIPID, s RuntimeVIP) {
	if s.Grant != nil {
		g := *s.Grant
		g.until = m.now.Add(g.Lease)
		s.Grant = &g
	}
	m.strangers[id] = s
}
