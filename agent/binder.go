package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sipalive/elect"
	"sipalive/platform"
	"sipalive/vip"
)

// binder makes the kernel and the network agree with what the machine wants.
// It is told a level and works towards it in its own goroutine, so a kernel
// that takes its time delays no heartbeat; it ends a lease by itself when the
// loop does not renew it.
type binder struct {
	a       *Agent
	wake    chan struct{}
	repair  chan struct{}
	devices chan struct{} // some appeared or changed: fence them
	flush   chan struct{} // there is something in stale
	unheard atomic.Bool   // neighbours may have missed us: announce what is held once more

	mu     sync.Mutex // for what follows, which the loop, run and others share
	level  []elect.Desired
	owed   map[elect.VIPID]bool // the machine waits for word that it is off
	wanted map[elect.VIPID]bool // what the machine last held: more than level, where that could not be stored
	fenced map[netip.Addr]bool  // what the fence knows
	unsaid map[netip.Addr]bool  // whose first announcement waits for its turn; true: of a takeover
	stale  map[netip.Addr]bool  // whose connections are tracked still; off the fast path
	// A reload is under way, and has put other names in force: take them up.
	changing, renamed bool

	// What follows is run's own.
	applied map[elect.VIPID]*applied
	view    *vip.View // of a round that has many addresses to look after; else nil
	again   bool      // this round announces what is held already
}

// applied is what the binder has done for one VIP or role.
type applied struct {
	*lease
	address  vip.Address
	on       bool
	epoch    elect.Epoch
	until    elect.Instant
	renewAt  elect.Instant // of its lifetime
	retryAt  elect.Instant
	stuck    string // why the kernel does not let it go
	survivor bool
	moved    bool // a reload gave it another interface
}

// unbindRetry is how soon an address that the kernel would not let go is tried
// again.
const unbindRetry = 100 * time.Millisecond

func newBinder(a *Agent) *binder {
	b := &binder{a: a, wake: make(chan struct{}, 1), repair: make(chan struct{}, 1),
		devices: make(chan struct{}, 1), owed: map[elect.VIPID]bool{}, wanted: map[elect.VIPID]bool{},
		fenced: map[netip.Addr]bool{}, applied: map[elect.VIPID]*applied{}, stale: map[netip.Addr]bool{}, unsaid: map[netip.Addr]bool{}, flush: make(chan struct{}, 1)}
	b.takeNames()
	for id, ap := range b.applied {
		if ap.vip != nil {
			b.fenced[ap.address.IP] = true
		}
		b.level = append(b.level, elect.Desired{VIP: id})
	}
	for _, h := range a.Adopted {
		if ap := b.applied[h.VIP]; ap != nil {
			ap.on, ap.epoch, ap.until = true, h.Epoch, h.Until
			d := b.levelOf(h.VIP)
			d.Hold, d.Epoch, d.Until = true, h.Epoch, h.Until
			b.wanted[h.VIP] = true
		}
	}
	return b
}

// levelOf is what is wanted of a VIP so far, nil for none that is known.
func (b *binder) levelOf(id elect.VIPID) *elect.Desired {
	for i := range b.level {
		if b.level[i].VIP == id {
			return &b.level[i]
		}
	}
	return nil
}

// lives reports whether the lease of a VIP has not ended by the clock, which may
// be ahead of what the loop has come to.
func (b *binder) lives(id elect.VIPID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.levelOf(id)
	return d != nil && d.Hold && b.a.Now() < d.Until
}

// arrange brings the level into the order of a new one.
func (b *binder) arrange(level []elect.Desired) (changed bool) {
	same := func(a, b elect.Desired) bool { return a.VIP == b.VIP }
	if slices.EqualFunc(b.level, level, same) {
		return false
	}
	arranged := make([]elect.Desired, len(level))
	for i, d := range level {
		arranged[i].VIP = d.VIP
		if old := b.levelOf(d.VIP); old != nil {
			arranged[i] = *old
		}
	}
	b.level = arranged
	return true
}

// want sets the level. What was not stored must not be held anew: then only
// what is held already, under its old end, stays (§4.5).
func (b *binder) want(level []elect.Desired, stored bool) {
	if level == nil {
		return // no change: the machine has only heard that a record was not stored
	}
	b.mu.Lock()
	changed := b.arrange(level)
	for i, d := range level {
		old := &b.level[i]
		if b.wanted[d.VIP] && !d.Hold {
			b.owed[d.VIP], changed = true, true // of what was never bound, too
		}
		b.wanted[d.VIP] = d.Hold
		if *old == d || !stored && d.Hold {
			continue
		}
		ended := old.Hold && b.a.Now() >= old.Until // the binder may have taken it down by itself
		changed = changed || old.Hold != d.Hold || old.Epoch != d.Epoch || old.Survivor != d.Survivor || ended
		*old = d
		leases := b.a.Directory.leases
		if d.Hold {
			b.recordLease(d)
			b.setFence(d.VIP, d.Until)
			continue
		}
		leases.end(d.VIP)
		b.setFence(d.VIP, 0)
	}
	b.mu.Unlock()
	if changed {
		poke(b.wake)
		runtime.Gosched() // the binder now, on this thread: what else the loop has to say can wait for another to wake up
	}
}

// recordLease keeps a lease for an agent that comes after this one. Evidence is
// no lease: a survivor's successor has to find its own.
func (b *binder) recordLease(d elect.Desired) {
	if d.Survivor {
		b.a.Directory.leases.end(d.VIP)
		return
	}
	b.a.Directory.leases.put(d.VIP, d.Epoch, b.a.Now(), d.Until)
}

// poke wakes who waits at ch, if not now then next time.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (b *binder) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.flushConntrack(ctx) })
	due := make(chan struct{}, 1)
	alarm := b.a.Alarms.New(func() { poke(due) })
	defer alarm.Stop()
	for {
		var next elect.Instant
		select {
		case <-ctx.Done():
			b.leave()
			return nil
		case <-b.repair:
			next = b.putRight()
		case <-b.wake:
			next = b.apply(false)
		case <-due:
			next = b.apply(false)
		case <-b.a.Announcer.Left():
			b.said()
			continue
		}
		alarm.Set(int64(next))
	}
}

// putRight looks for what somebody changed, and announces what is held once more
// where neighbours may have missed it.
func (b *binder) putRight() (next elect.Instant) {
	b.again = b.unheard.Swap(false)
	defer func() { b.again = false }()
	return b.apply(true)
}

// leave takes down what is still bound when the agent ends in order: nothing
// outlives a lease. After a stop there is nothing left to do.
func (b *binder) leave() {
	if b.a.left.Load() {
		return
	}
	b.view, _ = b.a.Table.View()
	for _, ap := range b.applied {
		if ap.on && ap.vip != nil {
			b.setFence(ap.id, 0)
			b.silence(ap)
			_ = b.a.Table.UnbindSeeing(b.view, ap.address)
		}
	}
}

// apply works through the level, unbinding first, and returns when it is due
// again.
func (b *binder) apply(repair bool) elect.Instant {
	b.mu.Lock()
	now := b.a.Now() // under the lock: want compares with the same clock what this round ends
	level := slices.Clone(b.level)
	renamed := b.renamed
	b.renamed = false
	b.mu.Unlock()
	if renamed {
		b.takeNames()
		b.manage()
		repair = true // what came into the configuration may be bound by somebody
	}
	b.look(level, repair)
	next := now.Add(time.Hour)
	for _, d := range level {
		ap := b.applied[d.VIP]
		if ap == nil {
			continue
		}
		if d.Hold && now < d.Until {
			continue
		}
		b.release(ap, repair, &next)
	}
	for _, d := range level {
		if ap := b.applied[d.VIP]; ap != nil && d.Hold && now < d.Until {
			b.hold(ap, d, repair)
			next = min(next, d.Until)
			if ap.on && ap.vip != nil && b.a.Fence.Lifetimes() {
				next = min(next, ap.renewAt)
			}
		}
	}
	b.forgetLeft(level)
	return next
}

// look reads the kernel's table once for a round that would otherwise read it for
// each address. One VIP that is taken does not wait for it; of one that is let go it is
// known before, while it still answers, that there are no other copies to remove.
func (b *binder) look(level []elect.Desired, repair bool) {
	changes, lettingGo := 0, false
	for _, d := range level {
		if ap := b.applied[d.VIP]; ap != nil && (d.Hold && b.a.Now() < d.Until) != ap.on {
			changes++
			lettingGo = lettingGo || !d.Hold && b.a.Now() < ap.until // what has ended does not wait
		}
	}
	if b.view = nil; repair || changes > 1 || lettingGo {
		b.view, _ = b.a.Table.View() // without it each looks for itself, and says what is wrong
	}
}

// hold binds and announces; held already, it only puts right what somebody
// changed behind our back.
func (b *binder) hold(ap *applied, d elect.Desired, repair bool) {
	ap.until = d.Until
	if ap.on {
		b.renew(ap)
		b.turn(ap, d.Survivor)
	}
	if ap.on && !repair {
		ap.epoch = d.Epoch
		return
	}
	fresh, moved := !ap.on, ap.moved
	ap.moved = false
	if ap.vip != nil {
		if err := b.bind(ap); err != nil {
			b.silence(ap)
			undo := b.a.Table.Unbind(ap.address) // what failed may have been half done
			ap.on = false
			b.a.actions.failed(ap.id, d.Epoch, err.Error())
			if undo != nil {
				err = fmt.Errorf("%w; %w", err, undo)
			}
			b.a.report(elect.Bound{VIP: ap.id, On: undo != nil, Err: err.Error()})
			return
		}
	}
	bound := b.a.Now()
	if fresh && bound >= d.Until {
		// The kernel, or a freeze, took longer than the lease: nobody hears of it.
		if ap.vip != nil {
			_ = b.a.Table.Unbind(ap.address)
		}
		return
	}
	ap.on, ap.epoch, ap.survivor = true, d.Epoch, d.Survivor
	waits := false
	if fresh || moved || b.again && !ap.survivor {
		waits = b.announce(ap, fresh || moved, fresh)
	}
	if fresh {
		if ap.vip != nil {
			b.a.recorder.bound(ap.id, d.Epoch, bound, b.a.Now(), ap.vip.Announce && !waits)
		}
		b.forget(ap)
		b.a.actions.bound(ap.id, d.Epoch)
		b.a.report(elect.Bound{VIP: ap.id, On: true})
	}
}

// turn lets the announcements of a VIP begin when a survivor's hold becomes a
// lease, and end when a holder outlives its lease: a survivor announces when
// it binds, and then only where the machine asks it to (§4.6).
func (b *binder) turn(ap *applied, survivor bool) {
	switch {
	case ap.survivor == survivor || ap.vip == nil:
	case survivor:
		b.a.Announcer.Stop(ap.address.IP)
		b.a.watch.Hold(ap.address.IP, true)
		ap.survivor = true
	default:
		ap.survivor = false
		b.announce(ap, false, false)
	}
}

// announce tells the neighbours, and asks the router whether it has heard. What
// they were told of here before can wait for what they were not; and so that may
// have to, for the operator's limit.
func (b *binder) announce(ap *applied, first, took bool) (waits bool) {
	if ap.vip == nil {
		return false
	}
	ip := ap.address.IP
	defer b.a.watch.Hold(ip, ap.survivor)
	if !ap.vip.Announce {
		return false
	}
	if first {
		if err := b.a.Announcer.Announce(ip, ap.address.Interface); err != nil {
			b.a.recorder.warn(fmt.Sprintf("announce %s", ap.name), err)
		}
		if waits = b.a.Announcer.Waits(ip); waits {
			b.mu.Lock()
			b.unsaid[ip] = took
			b.mu.Unlock()
		}
	}
	if ap.survivor {
		return waits
	}
	b.a.Announcer.Start(ip, ap.address.Interface)
	if !first {
		b.a.Announcer.Again(ip)
	}
	return waits
}

// said goes on with what had to wait for the first announcement of a VIP to leave
// ([announce] limit): the router can know it only now, and so can the phones.
func (b *binder) said() {
	for _, ap := range b.applied {
		ip := ap.address.IP
		if ap.vip == nil || !b.isUnsaid(ip) || b.a.Announcer.Waits(ip) {
			continue
		}
		b.mu.Lock()
		took := b.unsaid[ip]
		delete(b.unsaid, ip)
		b.mu.Unlock()
		if !ap.on || !b.a.Ends.Ahead(ip) {
			continue
		}
		if took {
			b.a.recorder.mark(ap.id, ap.epoch, "announced", b.a.Now())
		}
		b.a.watch.Hold(ip, ap.survivor)
		b.a.phones.flushed(ip)
	}
}

// isUnsaid reports whether a VIP's first announcement had to wait, and has not been
// seen to leave.
func (b *binder) isUnsaid(ip netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, unsaid := b.unsaid[ip]
	return unsaid
}

// silence ends everything that speaks in a VIP's name by itself.
func (b *binder) silence(ap *applied) {
	b.a.watch.LetGo(ap.address.IP)
	b.a.Announcer.Stop(ap.address.IP)
	b.mu.Lock()
	delete(b.unsaid, ap.address.IP)
	b.mu.Unlock()
}

// release silences the announcer before the address goes, and the machine is
// told only when it is gone: only then may it release the lease.
func (b *binder) release(ap *applied, repair bool, next *elect.Instant) {
	b.mu.Lock()
	owed := b.owed[ap.id]
	b.mu.Unlock()
	if !ap.on && !owed && (!repair || ap.vip == nil || b.view.Absent(ap.address.IP)) {
		return
	}
	if b.a.Now() < ap.retryAt {
		*next = min(*next, ap.retryAt)
		return
	}
	if ap.vip != nil {
		b.silence(ap)
		if err := b.a.Table.UnbindSeeing(b.view, ap.address); err != nil {
			ap.retryAt = b.a.Now().Add(unbindRetry)
			*next = min(*next, ap.retryAt)
			if ap.stuck != err.Error() { // once, not ten times a second
				ap.stuck = err.Error()
				b.a.report(elect.Bound{VIP: ap.id, On: true, Err: ap.stuck})
			}
			return
		}
	}
	if ap.on {
		b.forget(ap)
		b.a.phones.left(ap)
	}
	ap.on, ap.retryAt, ap.stuck = false, 0, ""
	if owed {
		b.mu.Lock()
		delete(b.owed, ap.id)
		b.mu.Unlock()
		b.a.report(elect.Bound{VIP: ap.id})
	}
}

// forget has the connection-tracking entries of a VIP removed.
func (b *binder) forget(ap *applied) {
	if ap.vip == nil {
		return
	}
	b.mu.Lock()
	b.stale[ap.address.IP] = true
	b.mu.Unlock()
	poke(b.flush)
}

// flushConntrack removes the connection-tracking entries of addresses that came
// or left: of what passed while another node held them, NAT and firewall
// verdicts are wrong here.
func (b *binder) flushConntrack(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.flush:
			b.flushStale()
		}
	}
}

func (b *binder) flushStale() {
	b.mu.Lock()
	ips := slices.Collect(maps.Keys(b.stale))
	clear(b.stale)
	b.mu.Unlock()
	if len(ips) == 0 {
		return
	}
	var managed []vip.Address
	for _, ip := range ips {
		managed = append(managed, vip.Address{IP: ip})
	}
	_ = b.a.Conntrack.Manage(managed) // some may have come, or left, by a reload
	if _, err := b.a.Conntrack.FlushConntrack(ips...); err != nil {
		b.a.recorder.warn("flush connection tracking", err)
	}
	for _, ip := range ips {
		if !b.isUnsaid(ip) { // else once they can answer
			b.a.phones.flushed(ip)
		}
	}
}

// expected: an address of IPv4 that is held here has come, or got another lifetime,
// in its place and shape. That was the binder, and every second it renews as many as
// are held.
func (b *binder) expected(c platform.AddressChange) bool {
	if !c.Added || !c.Address.Addr().Is4() || !c.Address.IsSingleIP() {
		return false
	}
	l := b.a.names().byID[vipID(c.Address.Addr())]
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.levelOf(vipID(c.Address.Addr()))
	return l != nil && l.vip != nil && l.vip.Interface == c.Interface && d != nil && d.Hold && b.a.Now() < d.Until
}

// watch wakes the binder when somebody changed one of our addresses or an
// interface: what is held is put back, what is not held is taken away.
func (b *binder) watch(ctx context.Context) error {
	changes, err := platform.WatchAddresses(ctx, 64)
	if err != nil {
		return err
	}
	b.heed(changes)
	return nil
}

func (b *binder) heed(changes <-chan platform.AddressChange) {
	for c := range changes {
		ours := b.a.names().isOurs(c.Address.Addr()) && !b.expected(c)
		if c.Resync || c.Link != nil {
			poke(b.devices)
		}
		if c.Err != nil {
			b.a.recorder.warn("watch addresses", c.Err)
		}
		// Without carrier, and a moment after, frames are lost without an error;
		// so an interface that changed is one on which nobody may have heard us.
		lost := c.Resync || c.Link != nil || ours && !c.Added
		if lost {
			b.unheard.Store(true)
		}
		if lost || ours {
			poke(b.repair)
		}
	}
}
