package elect

import "fmt"

// handOver lets go of a VIP or role, for the successor that r names or for nobody. A
// role's release actions run first, under the lease: only they end its job, and two nodes
// must not do that job at once (§5.5). If the lease ends before them, the role is let go
// without waiting.
func (m *Machine) handOver(v *vip, r Release) {
	if !v.Role || v.Lock {
		m.letGo(v, r)
		return
	}
	v.closing = &r
	m.tell(Transition{Kind: ReleaseDue, VIP: v.ID, Node: m.self.Name, Epoch: v.held, Successor: r.Successor, Cause: r.Cause})
	m.beatNow = true
}

// onReleaseDone lets the role go. If the successor has died meanwhile, none is named:
// otherwise the others would have to wait for a dead node's lease to end.
func (m *Machine) onReleaseDone(e ReleaseDone) {
	v := find(m.everyVIP(), e.VIP)
	if v == nil || v.closing == nil || e.Epoch < v.first || e.Epoch > v.epoch {
		return
	}
	r := *v.closing
	if p := m.peer(r.Successor); p == nil || !p.alive {
		r = Release{Cause: r.Cause}
	}
	m.letGo(v, r)
}

// closes reports whether the holder's release actions of a role run. They need the lease
// to their end, whatever the holder's PBX says.
func (m *Machine) closes(v *vip, holder *peer) bool {
	if holder == m.self {
		return v.closing != nil
	}
	return v.Role && v.claim.by == holder && v.claim.hold.Moving
}

func (m *Machine) whyClosing(v *vip) string {
	to := "nobody"
	if s := v.closing.Successor; s != "" {
		to = string(s)
	}
	return fmt.Sprintf("move %s: its release actions run, then it goes to %s", v.Name, to)
}
