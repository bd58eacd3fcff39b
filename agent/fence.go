package agent

import (
	"context"
	"fmt"
	"time"

	"sipalive/elect"
)

// setFence moves the end of a lease in the kernel (§5.2). The loop does it
// itself, before the binder hears of the change: an address is never bound under
// a closed fence, nor unbound under an open one, and a renewal needs no binder.
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

// renewEvery is how often the lifetime of an address is renewed: each time
// wakes every program of the host that watches addresses.
const renewEvery = time.Second

// bind binds, behind the fence and with a lifetime where they are asked for. A
// device that cannot be fenced holds a VIP only where the fence may be missing,
// and one that nobody can hear holds none: another node may be heard.
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
	// What was bound already, by whomever, kept its end. Not at each repair: a
	// renewal wakes the watch, which asks for one.
	if !ap.on {
		ap.renewAt = 0
	}
	return b.a.Table.BindForSeeing(b.view, ap.address, b.lifetime(ap))
}

// lifetime is what an address needs: its lease may be longer by then, but not
// before the next renewal.
func (b *binder) lifetime(ap *applied) time.Duration {
	return ap.until.Sub(b.a.Now()) + renewEvery
}

// renew renews the lifetime of what is bound, about once a second.
func (b *binder) renew(ap *applied) {
	if ap.vip == nil || !b.a.Fence.Lifetimes() || b.a.Now() < ap.renewAt {
		return
	}
	if err := b.a.Table.Renew(ap.address, b.lifetime(ap)); err != nil {
		b.a.recorder.warn("renew the lifetime of "+ap.name, fmt.Errorf("%w; the kernel removes it when its lifetime is over", err))
	}
	ap.renewAt = b.a.Now().Add(renewEvery)
}

// fenceEvery is how often the fence is looked for where it belongs, beside each
// change of a device: somebody may have taken it off.
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
