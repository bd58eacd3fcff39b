package elect

import (
	"slices"
	"strings"
	"time"
)

// A lock is a lease that nobody holds unless a client on some node asks for it (§4.10).
// Its name is its identity. No configuration has it: a machine knows the locks in use,
// and forgets a lock that nobody has used for a while.
const lockPrefix = "lock:"

// LockID is the identity of a lock.
func LockID(name string) VIPID { return VIPID(lockPrefix + name) }

// Lock returns a lock's name; ok is false for a VIP or a role.
func (id VIPID) Lock() (name string, ok bool) {
	name, ok = strings.CutPrefix(string(id), lockPrefix)
	return name, ok && name != ""
}

const (
	// maxLocks is how many locks are known at a time. With every VIP and role they still
	// fit into a heartbeat.
	maxLocks = 256
	// lockMemory is how long an unused lock is remembered: its last holder comes last in
	// turn.
	lockMemory = time.Minute
)

// LockWanted says that a client on this node wants a lock. The machine asks for it until
// LockDone or LockLeft; the outcome is in Effects.Locks.
type LockWanted struct {
	VIP VIPID
	// Keep, if not 0, has the voters keep the lock for this node, over its reboot, until
	// that long after they last heard this node's Keep (§4.10).
	Keep time.Duration
}

// LockDone says that no client here wants the lock any more, and that whatever ran under
// it is over. The lock is released, and not kept any longer.
type LockDone struct{ VIP VIPID }

// LockLeft says that the client is gone without a word, or that its node is to be
// rebooted. The lease is left to end by itself; a lock that is kept stays kept.
type LockLeft struct{ VIP VIPID }

// KeepOver says that a lock that was obtained with Keep, maybe before a reboot, need not
// be kept for this node any longer.
type KeepOver struct {
	VIP   VIPID
	Epoch Epoch // the epoch it was held under
}

func (LockWanted) event() {}
func (LockDone) event()   {}
func (LockLeft) event()   {}
func (KeepOver) event()   {}

// HeldLock is the state that one lock known here should have. As with a VIP, Bound with
// On false answers the end of Hold, once what ran under the lock is over.
type HeldLock struct {
	Desired
	Kept bool // a majority of voters has on disk that the lock is kept for this node
}

// Keep asks a voter to keep a lock for its sender; For 0 ends that.
type Keep struct {
	VIP   VIPID
	Epoch Epoch // of the acquisition
	For   time.Duration
}

// Kept says that a Keep is on the voter's disk.
type Kept struct {
	VIP   VIPID
	Epoch Epoch
	For   time.Duration
}

func (Keep) message() {}
func (Kept) message() {}

// lock is what a machine knows of a lock beside what it knows of any lease.
type lock struct {
	wanted    bool
	left      bool // its lease is not renewed any more
	keep      time.Duration
	keepers   map[Node]bool // the voters whose disks have the keep
	keptSent  Instant
	notBefore Instant // until then a command from before the agent's restart may still run
}

// unkeep is the end of a keep, a Keep for 0, on its way to the voters.
type unkeep struct {
	msg     Keep
	missing map[Node]bool
	sent    Instant
	end     Instant
}

// KeptLock is a voter's word that a lock is for one node only, whatever becomes of
// that node's lease. It outlives the boot.
type KeptLock struct {
	Node  Node          `json:"node"`
	Epoch Epoch         `json:"epoch"`
	For   time.Duration `json:"for"`

	until   Instant // a restarted voter keeps it for the whole time again
	version uint64  // the first durable record that has it
}

// leased returns the VIP, role or lock with that identity; a lock is known from then on.
// It returns nil for a VIP or role that this configuration lacks, and for a lock beyond
// maxLocks.
func (m *Machine) leased(id VIPID) *vip {
	if v := m.known[id]; v != nil {
		return v
	}
	name, ok := id.Lock()
	if !ok || m.countLocks() >= maxLocks {
		return nil
	}
	v := newVIP(VIPConfig{ID: id, Name: name, Role: true, Lock: true}, -1, len(m.peers), m.now)
	// Nobody is known to hold it, so there is no reason to wait before the voters are
	// asked.
	v.freeSince = m.now.Add(-m.cfg.Lease)
	m.recall(v)
	v.barred, v.givenUp = max(v.barred, m.lockFloor), max(v.givenUp, m.lockFloor)
	v.saw(m.durable.Highest[lockPrefix])
	m.vips = append(m.vips, v)
	m.known[id] = v
	return v
}

func (m *Machine) countLocks() (n int) {
	for _, v := range m.vips {
		if v.Lock {
			n++
		}
	}
	return n
}

func (m *Machine) onLockWanted(e LockWanted) {
	if v := m.leased(e.VIP); v != nil && v.Lock {
		v.lock.wanted, v.lock.keep, v.lock.keepers = true, min(e.Keep, MaxKeep), nil
	}
}

func (m *Machine) onLockDone(e LockDone) {
	v := m.known[e.VIP]
	if v == nil || !v.Lock {
		return
	}
	if v.lock.keep > 0 && v.phase == holding {
		m.startUnkeep(v.ID, v.first)
	}
	m.forsake(v)
	if v.phase == holding {
		m.letGo(v, Release{Cause: CauseMove})
	}
}

func (m *Machine) onLockLeft(e LockLeft) {
	if v := m.known[e.VIP]; v != nil && v.Lock {
		m.forsake(v)
		v.lock.left = true
		v.voidVotes()
	}
}

// forsake ends the wish for a lock, and a candidacy for it. A lock that is held stays
// held.
func (m *Machine) forsake(v *vip) {
	v.lock.wanted, v.lock.keep, v.lock.keepers = false, 0, nil
	if v.phase == prevoting || v.phase == asking {
		m.drop(v)
	}
	m.beatNow = true
}

// standForLock starts a candidacy for a lock when this node's turn has come. No placement
// decides: the nodes that want it come in configured order, and the node that held it
// last comes last.
func (m *Machine) standForLock(v *vip, vacant Instant) {
	turn := m.self.index
	if v.lastHeld == m.self.Name {
		turn += len(m.peers)
	}
	wait := time.Duration(turn) * m.cfg.Stagger
	at := max(max(vacant, m.quorumSince).Add(wait), v.backoffUntil, v.lock.notBefore)
	if v.retryAt != 0 {
		at = max(at, v.retryAt.Add(wait))
	}
	if at > m.now {
		m.due(at)
		return
	}
	v.lock.left = false
	m.startPrevote(v, vacant, WhyNone)
}

// keptFromOthers is for how long the lock is still kept for a node other than p.
func (m *Machine) keptFromOthers(v *vip, p *peer) time.Duration {
	k := m.kept[v.ID]
	if k == nil || k.Node == p.Name || m.now >= k.until {
		return 0
	}
	m.due(k.until)
	return k.until.Sub(m.now)
}

// keepLocks tells the voters to keep the locks that clients here want kept: once per
// heartbeat interval, and faster until a majority has it on disk.
func (m *Machine) keepLocks() {
	for _, v := range m.vips {
		if !v.Lock || v.phase != holding || v.lock.keep == 0 || v.lock.left {
			continue
		}
		every := m.cfg.Heartbeat
		if !m.isKept(v) {
			every = m.pace()
		}
		if next := v.lock.keptSent.Add(every); m.now < next {
			m.due(next)
			continue
		}
		v.lock.keptSent = m.now
		m.due(m.now.Add(every))
		msg := Keep{VIP: v.ID, Epoch: v.first, For: v.lock.keep}
		for _, p := range m.peers {
			switch {
			case !m.lists.Active.Has(p.Name):
			case p == m.self:
				m.keepFor(v, p, msg)
			default:
				m.send(p, msg)
			}
		}
	}
	m.repeatUnkeeps()
	m.forgetKept()
}

// isKept reports whether a majority has on disk that the lock is kept for this node.
func (m *Machine) isKept(v *vip) bool {
	n := 0
	for _, p := range m.peers {
		if !m.lists.Active.Has(p.Name) {
			continue
		}
		if k := m.kept[v.ID]; p == m.self && k != nil && k.Node == p.Name && k.Epoch == v.first && m.onDisk(k) || v.lock.keepers[p.Name] {
			n++
		}
	}
	return n >= m.lists.Active.Majority()
}

func (m *Machine) onDisk(k *KeptLock) bool { return m.stored.Version >= k.version }

// onKeep is the voter's side: it keeps what it has granted, and says so once that is on
// disk.
func (m *Machine) onKeep(p *peer, msg Keep) {
	if !m.votes() {
		return
	}
	if msg.For == 0 {
		m.dropKept(msg.VIP, p.Name, msg.Epoch)
		m.send(p, Kept{VIP: msg.VIP, Epoch: msg.Epoch})
		return
	}
	v := m.leased(msg.VIP)
	if v == nil || !v.Lock {
		return
	}
	if k := m.keepFor(v, p, msg); k != nil && m.onDisk(k) {
		m.send(p, Kept(msg))
	}
}

// keepFor keeps the lock for p, if this voter's grant is p's.
func (m *Machine) keepFor(v *vip, p *peer, msg Keep) *KeptLock {
	g, k := v.grant, m.kept[v.ID]
	switch {
	case g == nil || g.Holder != p.Name || g.Instance != p.instance || m.now >= g.until || msg.For > MaxKeep:
		return nil
	case k != nil && k.Node == p.Name && k.Epoch > msg.Epoch:
		return nil // a late copy of an earlier acquisition's Keep
	case k != nil && k.Node != p.Name && m.now < k.until:
		return nil
	case k != nil && k.Node == p.Name && k.Epoch == msg.Epoch && k.For == msg.For:
	case k == nil && len(m.kept) >= maxLocks:
		return nil
	default:
		k = &KeptLock{Node: p.Name, Epoch: msg.Epoch, For: msg.For, version: m.durable.Version + 1}
		m.kept[v.ID] = k
		m.durableDue = true
	}
	k.until = m.now.Add(k.For)
	return k
}

// MaxKeep is the longest that a lock is kept for a node that is not heard.
const MaxKeep = 24 * time.Hour

func (m *Machine) onKept(p *peer, msg Kept) {
	if msg.For == 0 {
		for _, u := range m.unkeeps {
			if u.msg.VIP == msg.VIP && u.msg.Epoch == msg.Epoch {
				delete(u.missing, p.Name)
			}
		}
		return
	}
	v := m.known[msg.VIP]
	if v == nil || v.phase != holding || v.first != msg.Epoch || v.lock.keep != msg.For {
		return
	}
	if v.lock.keepers == nil {
		v.lock.keepers = map[Node]bool{}
	}
	v.lock.keepers[p.Name] = true
}

func (m *Machine) onKeepOver(e KeepOver) { m.startUnkeep(e.VIP, e.Epoch) }

// startUnkeep tells every voter to stop keeping the lock. It repeats that for as long as
// a voter that restarts may take to be back: such a voter would keep what it has on disk
// for the whole time again.
func (m *Machine) startUnkeep(id VIPID, e Epoch) {
	m.dropKept(id, m.self.Name, e)
	u := &unkeep{msg: Keep{VIP: id, Epoch: e}, missing: map[Node]bool{}, end: m.now.Add(max(time.Minute, 10*m.cfg.Lease))}
	for _, p := range m.peers {
		if p != m.self && m.lists.Active.Has(p.Name) {
			u.missing[p.Name] = true
		}
	}
	m.unkeeps = append(m.unkeeps, u)
}

func (m *Machine) repeatUnkeeps() {
	m.unkeeps = slices.DeleteFunc(m.unkeeps, func(u *unkeep) bool {
		if len(u.missing) == 0 || m.now >= u.end {
			return true
		}
		if next := u.sent.Add(m.cfg.Heartbeat / 2); u.sent == 0 || m.now >= next {
			u.sent = m.now
			for _, p := range m.peers {
				if u.missing[p.Name] {
					m.send(p, u.msg)
				}
			}
		}
		m.due(u.sent.Add(m.cfg.Heartbeat / 2))
		return false
	})
}

func (m *Machine) dropKept(id VIPID, n Node, e Epoch) {
	k := m.kept[id]
	if k == nil || k.Node != n || k.Epoch > e {
		return
	}
	delete(m.kept, id)
	m.durableDue = true
	if v := m.known[id]; v != nil {
		v.retryAt = 0 // a refusal may have said to wait for the keep to end
	}
}

// forgetKept drops the locks that were kept for long enough.
func (m *Machine) forgetKept() {
	for id, k := range m.kept {
		if m.now < k.until {
			m.due(k.until)
			continue
		}
		m.dropKept(id, k.Node, k.Epoch)
	}
}

// forgetLocks drops the locks that nobody uses. It remembers the highest epoch of them
// all, so that no epoch of any lock is ever granted or held twice.
func (m *Machine) forgetLocks() {
	for i := 0; i < len(m.vips); i++ {
		v := m.vips[i]
		if !v.Lock || v.phase != idle || v.lock.wanted || v.claim.by != nil || v.grant != nil && m.now < v.grant.until {
			continue
		}
		if at := v.freeSince.Add(lockMemory); m.now < at {
			m.due(at)
			continue
		}
		m.lockFloor = max(m.lockFloor, v.top(), v.asked)
		m.durable.Highest[lockPrefix] = max(m.durable.Highest[lockPrefix], m.lockFloor)
		delete(m.known, v.ID)
		m.vips = append(m.vips[:i:i], m.vips[i+1:]...)
		m.dirty, m.durableDue = true, true
		i--
	}
}

// highestKey is the key of v's highest epoch in the durable record. All locks share one.
func (v *vip) highestKey() VIPID {
	if v.Lock {
		return lockPrefix
	}
	return v.ID
}

// LockStatus is one lock as seen from here.
type LockStatus struct {
	ID     VIPID
	Holder Node
	Epoch  Epoch
	Since  Instant
	Wanted bool // by a client on this node
	// KeptFor is the node that this voter keeps the lock for. KeptUntil is when that ends
	// if the node is not heard again.
	KeptFor   Node
	KeptUntil Instant
}

// Locks are the locks in use as seen from here.
func (m *Machine) Locks() (all []LockStatus) {
	for _, v := range m.vips {
		if !v.Lock {
			continue
		}
		vs := m.vipStatus(v)
		s := LockStatus{ID: v.ID, Holder: vs.Holder, Epoch: vs.Epoch, Since: vs.Since, Wanted: v.lock.wanted}
		if k := m.kept[v.ID]; k != nil && m.now < k.until {
			s.KeptFor, s.KeptUntil = k.Node, k.until
		}
		if s.Holder != "" || s.Wanted || s.KeptFor != "" {
			all = append(all, s)
		}
	}
	for id, k := range m.kept {
		if m.known[id] == nil && m.now < k.until {
			all = append(all, LockStatus{ID: id, Epoch: k.Epoch, KeptFor: k.Node, KeptUntil: k.until})
		}
	}
	return all
}

// restoreKept takes up what was kept on disk. Nobody knows how much of the time has
// passed, so it begins again.
func (m *Machine) restoreKept() {
	for id, k := range m.durable.Kept {
		k.until = m.now.Add(k.For)
		m.kept[id] = &k
	}
	m.durable.Kept = nil
}

func (m *Machine) keptRecord() map[VIPID]KeptLock {
	all := make(map[VIPID]KeptLock, len(m.kept))
	for id, k := range m.kept {
		all[id] = *k
	}
	return all
}
