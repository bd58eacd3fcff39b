package agent

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/hooks"
	"sipalive/sipcheck"
)

// actions runs what a takeover needs besides the address, and proves that SIP answers on
// it. All of that happens off the loop (§5.5).
type actions struct {
	a   *Agent
	mu  sync.Mutex
	now map[elect.VIPID]takeover
	// chains counts the chains under way; an agent that stops in order lets them end.
	chains sync.WaitGroup
	ended  chan struct{} // closed when nothing runs any more
}

// takeover is what this node took, and under which epochs.
type takeover struct {
	epoch    elect.Epoch // the current epoch; it may have been raised in place
	took     elect.Epoch // the epoch under which it was acquired
	gone     bool
	released bool // its release actions have been started
	previous elect.Node
	cause    elect.Cause
	told     map[hooks.Phase]bool // which of the phases failed and unreachable have been started
}

func newActions(a *Agent) *actions {
	return &actions{a: a, now: map[elect.VIPID]takeover{}, ended: make(chan struct{})}
}

// closePatience is how long killed actions may take to be gone.
const closePatience = 2 * time.Second

// run waits for the agent's end and then ends the actions that still run.
func (x *actions) run(ctx context.Context) error {
	defer close(x.ended)
	<-ctx.Done()
	select {
	case <-x.a.stopped:
		x.await(releaseTimeout(x.a.Config()))
	default:
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
	defer cancel()
	if err := x.a.Runner.Close(c); err != nil {
		x.a.recorder.warn("end the actions", err)
	}
	return nil
}

// await lets the chains under way end by themselves, up to limit. A stop that killed its
// own release actions would not be a handover.
func (x *actions) await(limit time.Duration) {
	idle := make(chan struct{})
	go func() { x.chains.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-time.After(limit):
	}
}

// transitions starts the chains that follow from what the machine decided. The acquire
// chain waits for the address: see bound.
func (x *actions) transitions(ts []elect.Transition) {
	for _, t := range ts {
		l := x.a.names().byID[t.VIP]
		if l == nil {
			if t.Kind == elect.ReleaseDue { // no actions to wait for
				go x.a.report(elect.ReleaseDone{VIP: t.VIP, Epoch: t.Epoch})
			}
			continue
		}
		switch t.Kind {
		case elect.Acquired:
			x.set(t.VIP, takeover{epoch: t.Epoch, took: t.Epoch, previous: t.Previous, cause: t.Cause})
			x.a.Runner.Newer(string(l.id), uint64(t.Epoch))
		case elect.Raised:
			was := x.get(t.VIP)
			x.a.Runner.Raised(string(l.id), uint64(was.epoch), uint64(t.Epoch))
			was.epoch = t.Epoch
			x.set(t.VIP, was)
		case elect.HolderSeen:
			x.a.Runner.Newer(string(l.id), uint64(t.Epoch))
		case elect.VerifyFailed, elect.ActionFailed:
			x.once(l, hooks.Failed, t.Epoch, words(t, l.name))
		case elect.Lapsed:
			x.a.vipTargets.stop(t.VIP)
		case elect.ReleaseDue:
			x.release(l, t, func(hooks.End) { go x.a.report(elect.ReleaseDone{VIP: t.VIP, Epoch: t.Epoch}) })
		case elect.LetGo:
			x.a.vipTargets.stop(t.VIP)
			x.release(l, t, nil)
		case elect.RetireDue:
			x.start(l, hooks.Retire, t.Epoch, x.event(l, t.Epoch, x.get(t.VIP).previous, t.Cause), nil)
		}
	}
}

// release runs the release actions: of a VIP after it was let go, of a role before.
func (x *actions) release(l *lease, t elect.Transition, done func(hooks.End)) {
	was := x.get(t.VIP)
	if was.released {
		return
	}
	was.gone, was.released = true, true
	x.set(t.VIP, was)
	x.start(l, hooks.Release, t.Epoch, x.event(l, t.Epoch, was.previous, t.Cause), done)
}

func (x *actions) set(id elect.VIPID, t takeover) {
	x.mu.Lock()
	x.now[id] = t
	x.mu.Unlock()
}

func (x *actions) get(id elect.VIPID) takeover {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now[id]
}

func (x *actions) event(l *lease, e elect.Epoch, previous elect.Node, c elect.Cause) hooks.Event {
	ev := hooks.Event{VIP: l.name, Node: x.a.Self.Name, Previous: string(previous), Epoch: uint64(e), Cause: hookCause(c), Reason: c.String()}
	if l.address.IsValid() {
		ev.Address = l.address.String()
	}
	return ev
}

// hookCause returns a cause in the terms that `when` distinguishes.
func hookCause(c elect.Cause) hooks.Cause {
	switch c {
	case elect.CauseBoot:
		return hooks.Boot
	case elect.CauseCrash:
		return hooks.Crash
	case elect.CauseSIP, elect.CauseVerify, elect.CauseCheck:
		return hooks.SIP
	}
	return hooks.Move // planned, by whoever asked
}

func (x *actions) start(l *lease, phase hooks.Phase, e elect.Epoch, ev hooks.Event, done func(hooks.End)) {
	x.chains.Add(1)
	ended := func(end hooks.End) {
		x.chains.Done()
		if done != nil {
			done(end)
		}
	}
	x.a.Runner.Start(string(l.id), phase, uint64(e), ev, l.actions, func(o hooks.Outcome) {
		x.a.recorder.action(l.id, phase, elect.Epoch(o.Epoch), o)
	}, ended)
}

// bound hears from the binder that the address is bound and announced. Now the acquire
// actions run, and then SIP has to answer on the address.
func (x *actions) bound(id elect.VIPID, e elect.Epoch) {
	l, t := x.a.names().byID[id], x.get(id)
	x.acquire(l, e, t.took, x.event(l, e, t.previous, t.cause))
}

func (x *actions) acquire(l *lease, e, took elect.Epoch, ev hooks.Event) {
	x.start(l, hooks.Acquire, e, ev, func(end hooks.End) {
		if end.GiveBack != "" {
			go x.giveBack(l, took, end.GiveBack)
			return
		}
		go x.verify(l, took)
	})
}

// giveBack ends a takeover whose actions failed. SIP is not asked.
func (x *actions) giveBack(l *lease, took elect.Epoch, why string) {
	t := x.get(l.id)
	if t.gone || t.took != took {
		return
	}
	x.a.recorder.complete(l.id, t.epoch, why)
	x.a.report(elect.Verified{VIP: l.id, Epoch: t.epoch, GiveBack: true})
}

// failed starts the failed actions of a takeover that came to nothing.
func (x *actions) failed(id elect.VIPID, e elect.Epoch, why string) {
	x.once(x.a.names().byID[id], hooks.Failed, e, why)
}

// unreachable starts the actions for a VIP held here for which there is no proof that the
// router follows.
func (x *actions) unreachable(id elect.VIPID, why string) {
	l, t := x.a.names().byID[id], x.get(id)
	if t.gone {
		return
	}
	x.once(l, hooks.Unreachable, t.epoch, why)
	x.a.recorder.notice(config.NoticeUnreachable, l, t.epoch, why)
}

// once starts a phase that runs once per takeover, however often once is called.
func (x *actions) once(l *lease, phase hooks.Phase, e elect.Epoch, why string) {
	x.mu.Lock()
	t := x.now[l.id]
	first := t.epoch == e && !t.told[phase]
	if first {
		told := map[hooks.Phase]bool{phase: true}
		maps.Copy(told, t.told)
		t.told = told
		x.now[l.id] = t
	}
	x.mu.Unlock()
	if first {
		ev := x.event(l, e, t.previous, t.cause)
		ev.Reason = why
		x.start(l, phase, e, ev, nil)
	}
}

// resume starts the actions that an earlier agent was to run and did not finish, for VIPs
// that are still held and for others. It runs before the loop does.
func (x *actions) resume() {
	held := map[elect.VIPID]elect.Epoch{}
	for _, h := range x.a.Adopted {
		held[h.VIP] = h.Epoch
	}
	for i := range x.a.names().leases {
		l := &x.a.names().leases[i]
		e := held[l.id]
		owed, before := x.a.Runner.Resume(string(l.id), uint64(e))
		if e != 0 {
			t := takeover{epoch: e, took: e, cause: elect.CauseCrash}
			if before != nil {
				t.previous = elect.Node(before.Previous)
			}
			x.set(l.id, t)
		}
		for _, o := range owed {
			x.rerun(l, o)
		}
	}
}

func (x *actions) rerun(l *lease, o hooks.Owed) {
	e := elect.Epoch(o.Epoch)
	if o.Event.VIP == "" { // nothing is known of the takeover but that there was one
		o.Event = x.event(l, e, "", elect.CauseCrash)
	}
	x.a.recorder.rerun(l, o)
	if o.Phase == hooks.Acquire {
		x.acquire(l, e, e, o.Event)
		return
	}
	x.start(l, o.Phase, e, o.Event, nil)
}

// verify asks the VIP itself with OPTIONS until it answers or time is up. The takeover
// whose actions ran may be over by now. Then verify asks nothing, because what answers
// would belong to another takeover.
func (x *actions) verify(l *lease, took elect.Epoch) {
	t := x.get(l.id)
	if t.gone || t.took != took {
		return
	}
	e := t.epoch
	if l.vip == nil || !x.a.Config().SIP.Verify {
		x.a.recorder.complete(l.id, e, "done")
		x.a.report(elect.Verified{VIP: l.id, Epoch: e, Skipped: true})
		x.watch(l, took, e)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), x.a.Config().SIP.VerifyTimeout)
	defer cancel()
	err := x.answers(ctx, l)
	if err == nil {
		x.a.recorder.mark(l.id, e, "sip answered", x.a.Now())
		x.a.recorder.complete(l.id, e, "done")
	} else {
		x.a.recorder.complete(l.id, e, fmt.Sprintf("%s does not answer SIP: %v", l.name, err))
	}
	x.a.report(elect.Verified{VIP: l.id, Epoch: e, OK: err == nil})
	x.watch(l, took, e)
}

// watch goes on asking the targets on the VIP, unless the VIP was let go meanwhile.
func (x *actions) watch(l *lease, took, e elect.Epoch) {
	x.a.vipTargets.start(l, e)
	if t := x.get(l.id); t.gone || t.took != took {
		x.a.vipTargets.stop(l.id) // let go between the two calls: its own stop came too early
	}
}

// verifyEvery is the time between two questions to a VIP that does not answer yet.
const verifyEvery = 50 * time.Millisecond

func (x *actions) answers(ctx context.Context, l *lease) error {
	for _, t := range verifiedBy(x.a.Config(), l) {
		to := sipTarget(x.a.Config(), t, x.a.Self.Name, l.address)
		for {
			_, err := sipcheck.Ping(ctx, to.Address, sipcheck.PingOptions{Local: LocalFor(x.a.Self, l.address),
				Transport: to.Transport, Security: x.a.security(), Timeout: t.Timeout, UserAgent: to.UserAgent})
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(verifyEvery):
			}
		}
	}
	return nil
}

// verifiedBy returns the targets that have to answer on a VIP: its own, or the node's if
// it has none.
func verifiedBy(c *config.Config, l *lease) []config.Target {
	if own := c.SIP.OnVIP(l.name); len(own) > 0 {
		return own
	}
	return c.SIP.OnNode()
}

// prepare gets this node ready to take a VIP over. It runs the prepare actions, then
// sends a fresh OPTIONS to the node's own PBX (§4.4).
func (x *actions) prepare(p elect.PrepareVIP) {
	l := x.a.names().byID[p.VIP]
	ready := func(end hooks.End) { go x.ready(p, end) }
	if p.Again {
		ready(hooks.End{OK: true})
		return
	}
	x.start(l, hooks.Prepare, p.Epoch+1, x.event(l, p.Epoch+1, p.Previous, p.Cause), ready)
}

func (x *actions) ready(p elect.PrepareVIP, end hooks.End) {
	if end.GiveBack != "" {
		x.a.report(elect.Prepared{VIP: p.VIP, Epoch: p.Epoch, Failed: end.GiveBack})
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), x.a.probeTimeout()+checkTimeout(x.a.Config()))
	defer cancel()
	done := elect.Prepared{VIP: p.VIP, Epoch: p.Epoch}
	err := x.a.probes.fresh(ctx)
	if err == nil && p.Cause == elect.CauseCheck { // the holder's failed check may fail here too
		err = x.a.checks.fresh(ctx)
	}
	if err != nil {
		done.Failed = err.Error()
	}
	x.a.report(done)
}

// probeTimeout bounds one fresh probe of each of the node's own targets.
func (a *Agent) probeTimeout() (d time.Duration) {
	for _, t := range a.Config().SIP.OnNode() {
		d += t.Timeout
	}
	return d + time.Second/10
}
