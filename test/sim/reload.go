package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// NewReloads draws a run of Lists in which running agents reload most files. Nodes and
// VIPs come and go and leases change too, in the middle of whatever else is under way.
func NewReloads(seed uint64) Lists {
	s := NewLists(seed)
	s.live = true
	r := rand.New(rand.NewPCG(seed, 0x4e10ad))
	nodes, vips := len(s.Config.Nodes), len(s.Config.VIPs)
	T := s.Config.Lease
	members, have, lease := all(nodes), all(vips), T
	// A node without a list asks every node that it knows. The operator must make sure
	// that a reinstalled node knows them all (§4.9).
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
		if e.at >= s.Duration { // all nodes are converging by then
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

// voters counts the voters of a file. A file without any is refused before an agent sees
// it.
func voters(e *edit) (n int) {
	for i, v := range e.voters {
		if v && (e.members[i] || i == e.node) {
			n++
		}
	}
	return n
}

// lease returns the lease in a node's file when everything is as it was at the start.
func (s Lists) lease(node int) time.Duration {
	if s.Leases != nil {
		return s.Leases[node]
	}
	return s.Config.Lease
}
