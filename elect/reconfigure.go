package elect

import "slices"

// Reconfigure gives the machine another configuration while it runs (a reload,
// §4.9). It ends where a restart of the agent with that file would, but that
// what is held stays held, and what was heard of the others stays known. A
// configuration without this node, or of another one, changes nothing.
//
// A VIP that is no longer in it is let go in order: it stays in Want, not to be
// held, until the kernel has said that it is gone.
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
		p.reread = p.reread || old.Digest != cfg.Digest // what it says means something else now
	}
	m.reconfigureVIPs()
	if old.Lease != cfg.Lease {
		m.changeLease()
	}
	if file := m.fileList(); !file.Equal(m.lists.File) {
		// As after a start: the rules of §4.9 have to hold for a full lease anew,
		// and an operator's word was about the list before.
		m.lists.File, m.lists.may, m.adopting = file, false, false
	}
	m.beatNow = true
}

// changeLease: grants carry their own length, so other nodes need not change
// with us. Our asks will cut the voters' grants down to a shorter lease, so what
// we hold is cut down first; and no vote that was asked for under one lease may
// count for another.
func (m *Machine) changeLease() {
	m.noteLease(m.cfg.Lease)
	for _, v := range m.vips {
		if v.phase == holding {
			v.until = min(v.until, m.now.Add(Usable(m.cfg.Lease)))
		}
	}
	m.voidQuestions()
}

// reconfigureNodes keeps what is known of the nodes that stay. What was counted
// by a node's place in the file is counted anew: a holder keeps its lease
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

// resettle brings one VIP's memory by node to their new places.
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

// replace moves marks by node to new places, and counts them.
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

// everyVIP is what is configured and what is on its way out.
func (m *Machine) everyVIP() []*vip {
	if len(m.leaving) == 0 {
		return m.vips // nearly always, and in every step
	}
	return slices.Concat(m.vips, m.leaving)
}

// maxStrangers bounds what is kept of VIPs that only other nodes have.
const maxStrangers = 1024

// noteStranger keeps the epoch of a VIP that only other nodes have yet, so that
// epochs go on rising once it is in this configuration too. It reaches the disk
// with the next record.
func (m *Machine) noteStranger(h Hold) {
	known, seen := m.durable.Highest[h.VIP]
	if h.Epoch > known && (seen || len(m.durable.Highest) < maxStrangers) {
		m.durable.Highest[h.VIP] = h.Epoch
	}
}

// recall gives a VIP that comes (back) into the configuration what this node
// has promised and seen of it.
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

// forgetLeft remembers of a VIP that is gone for good only what this node has
// promised: nobody may be asked for the same epoch twice should it come back.
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

// honour dates what an earlier life promised for VIPs that this configuration
// lacks: it counts for one full lease, as every other grant that is found.
func (m *Machine) honour(id VIPID, s RuntimeVIP) {
	if s.Grant != nil {
		g := *s.Grant
		g.until = m.now.Add(g.Lease)
		s.Grant = &g
	}
	m.strangers[id] = s
}
