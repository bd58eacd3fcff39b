package agent

import (
	"maps"
	"slices"

	"sipalive/elect"
	"sipalive/vip"
)

// changed ends what fenceMore began: it has the binder take up the names in force.
func (b *binder) changed() {
	b.mu.Lock()
	b.changing, b.renamed = false, true
	b.mu.Unlock()
	poke(b.wake)
}

// takeNames brings b.applied in line with the names in force. A VIP that has left the
// configuration stays until it is unbound: see forgetLeft.
func (b *binder) takeNames() {
	for id, l := range b.a.names().byID {
		ap := b.applied[id]
		if ap == nil {
			if l.left {
				continue
			}
			ap = &applied{}
			b.applied[id] = ap
		}
		ap.lease = l
		if l.vip == nil {
			continue
		}
		to := l.bindsTo()
		ap.moved = ap.moved || ap.on && ap.address != to
		if ap.address != to {
			ap.address, ap.renewAt = to, 0
		}
	}
}

// manage tells the kernel's table which addresses this agent is responsible for.
func (b *binder) manage() {
	var managed []vip.Address
	for _, ap := range b.applied {
		if ap.vip != nil {
			managed = append(managed, ap.address)
		}
	}
	if err := b.a.Table.Manage(managed); err != nil {
		b.a.recorder.warn("take up the VIPs of the new configuration", err)
	}
}

// forgetLeft drops VIPs that have left the configuration, once they are off and the
// machine knows. From then on this agent is not responsible for them.
func (b *binder) forgetLeft(level []elect.Desired) {
	b.mu.Lock()
	if b.changing || b.renamed {
		b.mu.Unlock()
		return // a VIP may be coming back: the next round knows
	}
	dropped := false
	for id, ap := range b.applied {
		if !ap.left || ap.on || b.owed[id] || slices.ContainsFunc(level, func(d elect.Desired) bool { return d.VIP == id }) {
			continue
		}
		delete(b.applied, id)
		delete(b.fenced, ap.address.IP)
		dropped = true
	}
	var err error
	if dropped {
		err = b.a.Fence.Manage(slices.Collect(maps.Keys(b.fenced)))
	}
	b.mu.Unlock()
	if !dropped {
		return
	}
	if err != nil {
		b.a.recorder.warn("take a VIP that left the configuration off the fence", err)
	}
	b.manage()
}

// fenceMore closes the fence for the addresses that a new configuration adds, before
// anybody could bind them. undo opens it again if the configuration is refused after all,
// because then this agent is not responsible for those addresses.
func (b *binder) fenceMore(n *names) (undo func() error, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changing = true
	before, more := b.fenced, maps.Clone(b.fenced)
	for i := range n.leases {
		if l := &n.leases[i]; l.vip != nil {
			more[l.address] = true
		}
	}
	undo = func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fenced = before
		return b.a.Fence.Manage(slices.Collect(maps.Keys(before)))
	}
	if err := b.a.Fence.Manage(slices.Collect(maps.Keys(more))); err != nil {
		_ = b.a.Fence.Manage(slices.Collect(maps.Keys(before)))
		return nil, err
	}
	b.fenced = more
	return undo, nil
}
