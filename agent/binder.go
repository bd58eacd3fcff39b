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

// binder makes the kernel and the network agree with what the machine wants. It is given
// a level and works towards it in its own goroutine, so a slow kernel delays no
// heartbeat. When the loop does not renew a lease, the binder ends it by itself.
type binder struct {
	a       *Agent
	wake    chan struct{}
	repair  chan struct{}
	devices chan struct{} // devices appeared or changed: fence them
	flush   chan struct{} // stale has entries
	unheard atomic.Bool   // neighbours may have missed our announcements: repeat them for all that is held

	mu     sync.Mutex // guards the fields up to renamed, which the loop, run and others share
	level  []elect.Desired
	owed   map[elect.VIPID]bool // the machine waits to hear that this VIP is off
	wanted map[elect.VIPID]bool // what the machine last wanted held; more than level holds where the record could not be stored
	fenced map[netip.Addr]bool  // the addresses that the fence knows
	unsaid map[netip.Addr]bool  // addresses whose first announcement waits for its turn; true: it is a takeover's
	stale  map[netip.Addr]bool  // addresses whose connection tracking is to be flushed, off the fast path
	// changing: a reload is under way. renamed: it has put other names in force, which run
	// must take up.
	changing, renamed bool

	// Only run uses the fields below.
	applied    map[elect.VIPID]*applied
	view       *vip.View // the kernel's table as this round has read it; nil: the round reads it per address
	reannounce bool      // this round repeats the announcements of what is held
}

// applied is what the binder has done for one VIP or role.
type applied struct {
	*lease
	address  vip.Address
	on       bool
	epoch    elect.Epoch
	until    elect.Instant
	renewAt  elect.Instant // when its lifetime is to be renewed
	retryAt  elect.Instant
	stuck    string // why the kernel refuses to remove it
	survivor bool
	moved    bool // a reload gave it another interface
}

// unbindRetry is the time between two tries to remove an address that the kernel refused
// to remove.
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

// levelOf returns what is wanted of a VIP so far; nil if the level does not contain it.
func (b *binder) levelOf(id elect.VIPID) *elect.Desired {
	for i := range b.level {
		if b.level[i].VIP == id {
			return &b.level[i]
		}
	}
	return nil
}

// lives reports whether the lease of a VIP is still running by the clock. The clock may
// be ahead of what the loop has processed.
func (b *binder) lives(id elect.VIPID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.levelOf(id)
	return d != nil && d.Hold && b.a.Now() < d.Until
}

// arrange puts b.level into the order of a new level, and reports whether that changed
// it.
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

// want sets the level. If the record was not stored, no VIP may newly be held: then only
// what is held already stays, and only until its old end (§4.5).
func (b *binder) want(level []elect.Desired, stored bool) {
	if level == nil {
		return // no change: the machine has only heard that a record was not stored
	}
	b.mu.Lock()
	changed := b.arrange(level)
	for i, d := range level {
		old := &b.level[i]
		if b.wanted[d.VIP] && !d.Hold {
			b.owed[d.VIP], changed = true, true // also if the VIP was never bound
		}
		b.wanted[d.VIP] = d.Hold
		if *old == d || !stored && d.Hold {
			continue
		}
		ended := old.Hold && b.a.Now() >= old.Until // the binder may have taken the VIP down by itself
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
		// Let the binder run now, on this thread. The rest of the loop's work can wait
		// until another thread has woken up.
		runtime.Gosched()
	}
}

// recordLease records a lease for the agent that comes after this one. A survivor holds
// by evidence, not by a lease; its successor has to find its own evidence.
func (b *binder) recordLease(d elect.Desired) {
	if d.Survivor {
		b.a.Directory.leases.end(d.VIP)
		return
	}
	b.a.Directory.leases.put(d.VIP, d.Epoch, b.a.Now(), d.Until)
}

// poke wakes the goroutine that waits at ch, now or when it next looks.
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

// putRight puts right what somebody else changed. Where neighbours may have missed
// announcements, it repeats them for what is held.
func (b *binder) putRight() (next elect.Instant) {
	b.reannounce = b.unheard.Swap(false)
	defer func() { b.reannounce = false }()
	return b.apply(true)
}

// leave takes down what is still bound when the agent ends in order, because nothing may
// outlive its lease. After a stop nothing is left to take down.
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

// apply works through the level, unbinding first, and returns when it is due again.
func (b *binder) apply(repair bool) elect.Instant {
	b.mu.Lock()
	now := b.a.Now() // read under the lock: want compares with the same clock to see what this round ends
	level := slices.Clone(b.level)
	renamed := b.renamed
	b.renamed = false
	b.mu.Unlock()
	if renamed {
		b.takeNames()
		b.manage()
		repair = true // a VIP that is new in the configuration may be bound already
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

// look reads the kernel's table once for a round that would otherwise read it per
// address. A round that only takes one VIP skips it, so that the VIP does not wait. Before
// a VIP is let go, look reads the table while the VIP still answers. It then usually shows
// that there are no other copies to remove.
func (b *binder) look(level []elect.Desired, repair bool) {
	changes, lettingGo := 0, false
	for _, d := range level {
		if ap := b.applied[d.VIP]; ap != nil && (d.Hold && b.a.Now() < d.Until) != ap.on {
			changes++
			lettingGo = lettingGo || !d.Hold && b.a.Now() < ap.until // a lease that has ended does not wait
		}
	}
	if b.view = nil; repair || changes > 1 || lettingGo {
		b.view, _ = b.a.Table.View() // without it, each address reads the table itself and reports the error
	}
}

// hold binds and announces. If the VIP is held already, hold only puts right what
// somebody else changed.
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
			undo := b.a.Table.Unbind(ap.address) // the failed bind may have been half done
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
		// The kernel, or a freeze, took longer than the lease: announce nothing.
		if ap.vip != nil {
			_ = b.a.Table.Unbind(ap.address)
		}
		return
	}
	ap.on, ap.epoch, ap.survivor = true, d.Epoch, d.Survivor
	waits := false
	if fresh || moved || b.reannounce && !ap.survivor {
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

// turn starts a VIP's regular announcements when a survivor's hold becomes a lease. It
// ends them when a holder outlives its lease and becomes a survivor. A survivor announces
// when it binds, and after that only when the machine asks it to (§4.6). Nobody then waits
// any more for the turn of a first announcement ([announce] limit).
func (b *binder) turn(ap *applied, survivor bool) {
	switch {
	case ap.survivor == survivor || ap.vip == nil:
	case survivor:
		b.a.Announcer.Stop(ap.address.IP)
		b.a.watch.Hold(ap.address.IP, true)
		ap.survivor = true
		if _, unsaid := b.forgetUnsaid(ap.address.IP); unsaid {
			b.a.phones.flushed(ap.address.IP)
		}
	default:
		ap.survivor = false
		b.announce(ap, false, false)
	}
}

// announce tells the neighbours, and asks the router whether it heard. Repeats are sent
// after first announcements. A first announcement may have to wait too, for the
// operator's limit: waits reports that.
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

// said goes on with a VIP whose first announcement had to wait ([announce] limit) and has
// now left. Only now can the router and the phones know where the VIP is.
func (b *binder) said() {
	for _, ap := range b.applied {
		ip := ap.address.IP
		if ap.vip == nil || !b.isUnsaid(ip) || b.a.Announcer.Waits(ip) {
			continue
		}
		took, _ := b.forgetUnsaid(ip)
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

// isUnsaid reports whether a VIP's first announcement had to wait and is not yet seen to
// have left.
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
	b.forgetUnsaid(ap.address.IP)
}

// forgetUnsaid ends the waiting for a VIP's first announcement. It reports whether
// anybody waited, and whether that was a takeover's announcement.
func (b *binder) forgetUnsaid(ip netip.Addr) (took, unsaid bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	took, unsaid = b.unsaid[ip]
	delete(b.unsaid, ip)
	return took, unsaid
}

// release stops the announcer before it removes the address. It tells the machine only
// when the address is gone, because only then may the machine release the lease.
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

// flushConntrack removes the connection-tracking entries of addresses that came or left.
// This kernel did not see what passed while another node held the address, so the entries'
// NAT and firewall verdicts are wrong.
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
	_ = b.a.Conntrack.Manage(managed) // a reload may have added or removed some
	if _, err := b.a.Conntrack.FlushConntrack(ips...); err != nil {
		b.a.recorder.warn("flush connection tracking", err)
	}
	for _, ip := range ips {
		if !b.isUnsaid(ip) { // otherwise said does it, once the phones can reach the VIP
			b.a.phones.flushed(ip)
		}
	}
}

// expected reports whether a change is the binder's own: an IPv4 address that is held
// here appeared, or got another lifetime, on its own interface and as a single IP. The
// binder renews the lifetime of every held address once a second.
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

// watch wakes the binder when somebody changed one of our addresses or an interface. The
// binder then puts back what is held and removes what is not.
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
		// Without carrier, and for a moment after it is back, frames are lost without an
		// error. So after a change of an interface, nobody on it may have heard us.
		lost := c.Resync || c.Link != nil || ours && !c.Added
		if lost {
			b.unheard.Store(true)
		}
		if lost || ours {
			poke(b.repair)
		}
	}
}
