package elect

import "strings"

// lists are this node's voter lists: the one of its file, and the active one
// under which it asks and grants (§4.9).
type lists struct {
	Lists
	since   Instant // the file's list may be taken since
	may     bool
	waiting string
}

// allow decides whether a vote may cross from an asker with lists a to this
// voter: two majorities must share a voter.
func (l *lists) allow(a Lists) bool {
	if l.Active == nil || a.Active == nil {
		return false
	}
	if l.Active.Equal(a.Active) {
		return true
	}
	return l.Active.Adjacent(a.Active) && l.File.Equal(a.File) &&
		(l.Active.Equal(l.File) || a.Active.Equal(l.File))
}

// takeList makes the file's list the active one when the rules of §4.9 have
// held for a full lease. It is on disk before it counts.
func (m *Machine) takeList() {
	l := &m.lists
	if l.File.Equal(l.Active) {
		l.waiting, l.may = "", false
		m.adopting = false
		return
	}
	if m.adopting {
		m.writeList()
		return
	}
	if l.waiting = m.listWaits(); l.waiting != "" {
		l.may = false
		return
	}
	if !l.may {
		l.may, l.since = true, m.now
	}
	at := l.since.Add(m.longestLease())
	if m.now < at {
		l.waiting = "one lease more"
		m.due(at)
		return
	}
	m.writeList()
}

// writeList puts the file's list on disk; it counts once it is there.
func (m *Machine) writeList() {
	m.lists.waiting = "the disk"
	if !m.durable.Active.Equal(m.lists.File) {
		m.durable.Active = m.lists.File
		m.durableDue = true
	}
}

// listWaits says whom the change of list waits for, empty for nobody.
func (m *Machine) listWaits() string {
	l := &m.lists
	if l.Active != nil && !l.Active.Adjacent(l.File) {
		return "the file differs from the active list by more than one node: change them one at a time, or `sipalive adopt`"
	}
	have := 0
	var missing []string
	for _, n := range l.File {
		p := m.peer(n)
		if p == nil || p == m.self {
			continue
		}
		theirs := p.beat.Lists
		if p.alive && theirs.Active.Equal(l.File) {
			have++
		}
		if !p.alive || !theirs.File.Equal(l.File) ||
			!(theirs.Active == nil || theirs.Active.Equal(l.File) || theirs.Active.Adjacent(l.File)) {
			missing = append(missing, string(n))
		}
	}
	if have >= l.File.Majority() || len(missing) == 0 {
		return ""
	}
	return "to hear the same voter list from " + strings.Join(missing, ", ")
}

// onStored makes durable changes count.
func (m *Machine) onStored(e Stored) {
	if e.Version < m.stored.Version || e.Version > m.durable.Version {
		return
	}
	m.stored.Version = e.Version
	if e.Version != m.durable.Version {
		return // a newer record is on its way
	}
	m.stored = m.durable
	if !m.lists.Active.Equal(m.stored.Active) {
		m.lists.Active = m.stored.Active
		m.beatNow = true
		m.voidQuestions()
		m.tell(Transition{Kind: ListTaken, Text: joinNodes(m.lists.Active)})
	}
}

// voidQuestions: no answer to what was asked under another list counts, and
// no promise made under it. A holder keeps the lease it has and asks anew.
func (m *Machine) voidQuestions() {
	for _, p := range m.peers {
		clear(p.asks[:])
	}
	for _, v := range m.vips {
		v.voidVotes()
		clear(v.rounds)
		v.ready = nil
	}
}

func joinNodes(l VoterList) string {
	s := make([]string, len(l))
	for i, n := range l {
		s[i] = string(n)
	}
	return strings.Join(s, ", ")
}
