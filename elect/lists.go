package elect

import "strings"

// lists are this node's voter lists: the one of its file, and the active one
// under which it asks and grants (§4.9).
type lists struct {
	Lists
	since   Instant // since when the file's list may be taken, if it may
	may     bool
	waiting string
}

// allow reports whether this voter may vote for an asker with the lists a: only under the
// same active list. When votes between adjacent lists were allowed, a voter whose list
// others had already left could make up a majority of the list before it (found by
// test/sim: {a,b,c} to {b,c} to {c}, with b's file going back).
func (l *lists) allow(a Lists) bool {
	return l.Active != nil && l.Active.Equal(a.Active)
}

// takeList makes the file's list the active one when the rules of §4.9 have held for a
// full lease. The list is on disk before it counts.
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

// writeList has the file's list written to disk. It counts once it is there.
func (m *Machine) writeList() {
	m.lists.waiting = "the disk"
	if !m.durable.Active.Equal(m.lists.File) {
		m.durable.Active = m.lists.File
		m.listFrom = m.durable.Version + 1
		m.durableDue = true
	}
}

// listWaits says whom or what the change of list waits for; empty for nobody.
func (m *Machine) listWaits() string {
	l := &m.lists
	if l.Active != nil && !l.Active.Adjacent(l.File) {
		return "the file differs from the active list by more than one node: change them one at a time, or `sipalive adopt`"
	}
	if l.Active != nil && !m.listInUse() {
		return "a majority of the active list to use it: the change before this one is not complete"
	}
	have := 0
	var missing []string
	for _, p := range m.peers {
		if p == m.self || l.Active != nil && !l.File.Has(p.Name) {
			continue // a node without a list asks all the nodes it knows: some may vote under a list that it is not on
		}
		theirs := p.beat.Lists
		if p.alive && l.File.Has(p.Name) && theirs.Active.Equal(l.File) {
			have++
		}
		if !p.alive || !theirs.File.Equal(l.File) ||
			!(theirs.Active == nil || theirs.Active.Equal(l.File) || theirs.Active.Adjacent(l.File)) {
			missing = append(missing, string(p.Name))
		}
	}
	if have >= l.File.Majority() || len(missing) == 0 {
		return ""
	}
	return "to hear the same voter list from " + strings.Join(missing, ", ")
}

// listInUse reports whether a majority of the active list's voters use that list, or the
// file's list already. Until then the list before the active one may still have a
// majority, and that majority need not share a voter with one of the file's list: {b} to
// {b,d} to {d}.
func (m *Machine) listInUse() bool {
	n := 0
	for _, p := range m.electorate {
		theirs := p.beat.Lists.Active
		if p == m.self {
			theirs = m.lists.Active
		}
		if p.alive && (theirs.Equal(m.lists.Active) || theirs.Equal(m.lists.File)) {
			n++
		}
	}
	return n >= m.lists.Active.Majority()
}

// onStored makes changes count that are on disk now.
func (m *Machine) onStored(e Stored) {
	if e.Version < m.stored.Version || e.Version > m.durable.Version {
		return
	}
	m.stored.Version = e.Version
	// Newer records may be on their way. What matters is whether this one has the change
	// already.
	if e.Version >= m.leaseFrom {
		m.stored.LongestLease = m.durable.LongestLease
	}
	if e.Version < m.listFrom {
		return
	}
	m.stored.Active = m.durable.Active
	if !m.lists.Active.Equal(m.stored.Active) {
		m.lists.Active = m.stored.Active
		m.seatVoters()
		m.beatNow = true
		m.voidQuestions()
		m.tell(Transition{Kind: ListTaken, Text: joinNodes(m.lists.Active)})
	}
}

// voidQuestions voids what was asked or promised under another list, lease or set of
// nodes: no answer to those asks counts, no vote and no ready. A holder keeps the lease
// it has and asks again.
func (m *Machine) voidQuestions() {
	for _, p := range m.peers {
		clear(p.asks)
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
