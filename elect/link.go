package elect

// Link is whether the interface that a VIP belongs on has a link. Without one
// this node is no place for the VIP, however well its heartbeats get through
// elsewhere: it gives it away, and ranks last.
type Link struct {
	VIP VIPID
	Up  bool
}

func (Link) event() {}

func (m *Machine) onLink(e Link) {
	v := m.known[e.VIP]
	if v == nil || v.linkDown == !e.Up {
		return
	}
	v.linkDown, v.moveAfter = !e.Up, 0
	m.beatNow = true
}
