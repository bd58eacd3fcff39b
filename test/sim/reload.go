package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// NewReloads draws a run of Lists in which most files are reloaded by running
// agents, and in which nodes and VIPs come and go and leases change as well, in
// the middle of whatever else is under way.
func NewReloads(seed uint64) Lists {
	s := NewLists(seed)
	s.live = true
	r := rand.New(rand.NewPCG(seed, 0x4e10ad))
	nodes, vips := len(s.Config.Nodes), len(s.Config.VIPs)
	T := s.Config.Lease
	members, have, lease := all(nodes), all(vips), T
	// A node without a list asks every node it knows: that a reinstalled one
	// knows them all is the operator's part (§4.9).
	leave := !slices.ContainsFunc(s.edits, func(e edit) bool { return e.lost })
	for i := range s.edits {
		e := &s.edits[i]
		switch r.IntN(6) {
		case 0:
			members = all(nodes)
			members[r.IntN(nodes)] = !leave || r.IntN(2) == 0
		case 1, 2:
			have = all(vips)
			have[r.IntN(vips)] = r.IntN(2) == 0
		case 3:
			lease = T * time.Duration(1+r.IntN(3))
		}
		if e.at >= s.Duration { // everybody is converging by then
			e.lease = s.lease(e.node)
			continue
		}
		e.live = !e.lost && r.IntN(5) > 0
		e.members, e.vips, e.lease = members, have, lease
		if voters(e) == 0 {
			e.members = nil
		}
	}
	return s
}

func all(n int) []bool {
	l := make([]bool, n)
	for i := range l {
		l[i] = true
	}
	return l
}

// voters counts those of a file; a file without any is refused before an agent
// sees it.
func voters(e *edit) (n int) {
	for i, v := range e.voters {
		if v && (e.members[i] || i == e.node) {
			n++
		}
	}
	return n
}

// lease is what a node's file says once everything is as it was.
func (s Lists) lease(node int) time.Duration {
	if s.Leases != nil {
		return s.Leases[node]
	}
	return s.Config.Lease
}
