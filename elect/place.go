package elect

import (
	"cmp"
	"fmt"
	"slices"
)

// class orders nodes before the rules of §4.8 do.
type class uint8

const (
	classFit     class = iota
	classLast          // held down, or excluded for this VIP: ranks last, but it ranks
	classDrained       // only if there is no one else
)

// ranked is one node's place for a VIP, with the rule that gave it.
type ranked struct {
	node  *peer
	class class
	why   Why
}

// load is what a node carries: number and weight of its VIPs.
type load struct {
	vips   int
	weight int
}

// placement is the ranking of every vacant VIP, by VIP index.
type placement map[int][]ranked

func (p placement) rank(v *vip, n *peer) int {
	return slices.IndexFunc(p[v.index], func(r ranked) bool { return r.node == n })
}

// loads counts what every node holds as seen from here.
func (m *Machine) loads() []load {
	l := make([]load, len(m.peers))
	for _, v := range m.vips {
		h := m.holder(v)
		if v.phase == holding && v.move != nil && v.move.to != nil {
			h = v.move.to // two VIPs that leave at once must not both find that node free
		}
		if h != nil {
			l[h.index].add(v)
		}
	}
	return l
}

func (l *load) add(v *vip) {
	if !v.Role {
		l.vips++
		l.weight += v.Weight
	}
}

// placeVacant ranks the nodes for every vacant VIP: one VIP after another in configured
// order, each seeing where the ones before it would go.
func (m *Machine) placeVacant() placement {
	plan := placement{}
	loads := m.loads()
	for _, v := range m.vips {
		if v.Lock || m.holder(v) != nil {
			continue
		}
		r := m.rank(v, loads, nil)
		plan[v.index] = r
		if len(r) > 0 {
			loads[r[0].node.index].add(v)
		}
	}
	return plan
}

// rank orders the nodes that may take v, all but without. Same input, same answer on
// every node (§4.8).
func (m *Machine) rank(v *vip, loads []load, without *peer) []ranked {
	var out []ranked
	for _, p := range m.peers {
		if p == without || !p.alive || !(p.Holder || v.Role) || p.unfit != "" {
			continue
		}
		out = append(out, m.placeNode(v, p, loads[p.index]))
	}
	slices.SortStableFunc(out, func(a, b ranked) int { return m.comparePlaces(v, loads, a, b) })
	return out
}

func (m *Machine) placeNode(v *vip, p *peer, l load) ranked {
	r := ranked{node: p}
	at := slices.Index(v.Prefer, p.Name)
	switch {
	case m.drained(p):
		r.class, r.why = classDrained, WhyDrained
	case m.excludes(p, v):
		r.class, r.why = classLast, WhyExcluded
	case m.heldDown(p):
		r.class, r.why = classLast, WhyHeldDown
	case v.PreferSpare && l.vips == 0:
		r.why = WhySparePrefer
	case at == 0 && l.vips == 0:
		r.why = WhyPrefer
	case at > 0 && l.vips == 0:
		r.why = WhyPreferNext
	case l.vips == 0:
		r.why = WhySpare
	default:
		r.why = WhyLoad
	}
	return r
}

func (m *Machine) comparePlaces(v *vip, loads []load, a, b ranked) int {
	la, lb := loads[a.node.index], loads[b.node.index]
	pa, pb := preferIndex(v, a.node), preferIndex(v, b.node)
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(ruleTwo(v, a.node, la), ruleTwo(v, b.node, lb)),
		cmp.Compare(la.weight*capacity(b.node), lb.weight*capacity(a.node)),
		cmp.Compare(pa, pb),
		cmp.Compare(a.node.index, b.node.index),
	)
}

// ruleTwo is the place in prefer of a node that holds nothing. Every other node comes
// after those, in the order of rule 3.
func ruleTwo(v *vip, p *peer, l load) int {
	switch {
	case v.PreferSpare && l.vips == 0 && p.Holder:
		return 0
	case l.vips > 0:
		return len(v.Prefer) + 1
	}
	return preferIndex(v, p)
}

func preferIndex(v *vip, p *peer) int {
	if i := slices.Index(v.Prefer, p.Name); i >= 0 {
		return i
	}
	return len(v.Prefer) + 1
}

func capacity(p *peer) int { return max(p.Capacity, 1) }

// Placed is one line of `sipalive plan`.
type Placed struct {
	VIP    VIPID
	Name   string
	Node   Node // empty: nobody can hold it
	Reason string
}

// Plan says who would hold what, and why, if the nodes without were gone.
func (m *Machine) Plan(without ...Node) []Placed {
	gone := func(p *peer) bool { return p != nil && slices.Contains(without, p.Name) }
	alive := make([]bool, len(m.peers))
	for i, p := range m.peers {
		alive[i] = p.alive
		m.setAlive(p, p.alive && !gone(p))
	}
	defer func() {
		for i, p := range m.peers {
			m.setAlive(p, alive[i])
		}
	}()
	loads := make([]load, len(m.peers))
	stays := make([]bool, len(m.vips))
	for i, v := range m.vips {
		if h := m.holder(v); h != nil && !gone(h) && (m.isFit(h) || m.nobodyFit()) {
			stays[i] = true
			loads[h.index].add(v)
		}
	}
	out := make([]Placed, 0, len(m.vips))
	for i, v := range m.vips {
		if v.Lock {
			continue
		}
		line := Placed{VIP: v.ID, Name: v.Name}
		if stays[i] {
			h := m.holder(v)
			line.Node, line.Reason = h.Name, fmt.Sprintf("%s: %s", h.Name, WhyHolds)
		} else if r := m.rank(v, loads, nil); len(r) > 0 {
			loads[r[0].node.index].add(v)
			line.Node, line.Reason = r[0].node.Name, fmt.Sprintf("%s: %s", r[0].node.Name, r[0].why)
		} else {
			line.Reason = "no node is fit"
		}
		out = append(out, line)
	}
	return out
}

func (m *Machine) nobodyFit() bool {
	return !slices.ContainsFunc(m.peers, func(p *peer) bool { return p.Holder && m.isFit(p) })
}
