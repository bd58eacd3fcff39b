package agent

import (
	"context"
	"fmt"
	"time"

	"sipalive/elect"
)

// setFence moves the end of a lease in the kernel (§5.2). The loop does this itself,
// before the binder hears of the change. So an address is never bound while the fence is
// closed for it, nor unbound while it is open, and a renewal does not need the binder.
func (b *binder) setFence(id elect.VIPID, until elect.Instant) {
	l := b.a.names().byID[id]
	if l == nil || l.vip == nil {
		return
	}
	b.a.Ends.set(l.address, until)
	if err := b.a.Fence.Set(l.address, int64(until)); err != nil {
		b.a.stats.fenceErrors.Add(1)
		b.a.recorder.warn("move the end of "+l.name+" in the fence", fmt.Errorf("%w (the old end counts: it may fall silent there)", err))
	}
}

// renewEvery is the time between two renewals of an address's lifetime. Each renewal
// wakes every program on the host that watches addresses.
const renewEvery = time.Second

// bind binds, behind the fence and with a lifetime where these are asked for. A device
// that cannot be fenced holds a VIP only where the fence may be missing. A device that no
// neighbour can hear holds none, because another node may be heard.
func (b *binder) bind(ap *applied) error {
	if err := b.a.Table.Reachable(ap.address); err != nil {
		return err
	}
	if err := b.a.Fence.Cover(ap.address.Interface); err != nil {
		if !b.a.Fence.Lifetimes() {
			return err
		}
		b.a.recorder.warn("fence "+ap.name, fmt.Errorf("%w; it is held under a lifetime alone", err))
	}
	if ap.on && b.view.Settled(ap.address, b.a.Fence.Lifetimes()) {
		return nil
	}
	if !b.a.Fence.Lifetimes() {
		return b.a.Table.BindSeeing(b.view, ap.address)
	}
	// An address that was bound already, by whomever, kept its old lifetime. Do not renew
	// at each repair: a renewal wakes the watch, and the watch asks for a repair.
	if !ap.on {
		ap.renewAt = 0
	}
	return b.a.Table.BindForSeeing(b.view, ap.address, b.lifetime(ap))
}

// lifetime returns how long an address must live: to the end of its lease, and until the
// next renewal, before which no longer lease reaches the kernel.
func (b *binder) lifetime(ap *applied) time.Duration {
	return ap.until.Sub(b.a.Now()) + renewEvery
}

// renew renews the lifetime of a bound address, about once a second.
func (b *binder) renew(ap *applied) {
	if ap.vip == nil || !b.a.Fence.Lifetimes() || b.a.Now() < ap.renewAt {
		return
	}
	if err := b.a.Table.Renew(ap.address, b.lifetime(ap)); err != nil {
		b.a.recorder.warn("renew the lifetime of "+ap.name, fmt.Errorf("%w; the kernel removes it when its lifetime is over", err))
	}
	ap.renewAt = b.a.Now().Add(renewEvery)
}

// fenceEvery is how often the fence is checked on all devices, besides at each change of
// a device: somebody may have removed it.
const fenceEvery = 10 * time.Second

// keepFence fences devices that appear.
func (b *binder) keepFence(ctx context.Context) error {
	tick := time.NewTicker(fenceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.devices:
		case <-tick.C:
		}
		if err := b.a.Fence.Sync(); err != nil {
			b.a.recorder.warn("fence every device", fmt.Errorf("%w; a VIP there is held under a lifetime at best", err))
		}
	}
}
