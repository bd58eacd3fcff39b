package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/hooks"
	"sipalive/sipcheck"
)

// actions runs what a takeover asks for besides the address, and proves that
// SIP answers on it. All of it happens off the loop (§5.5).
type actions struct {
	a   *Agent
	mu  sync.Mutex
	now map[elect.VIPID]takeover
	// chains are those under way; an agent that stops in order lets them end.
	chains sync.WaitGroup
	ended  chan struct{} // nothing runs any more
}

// takeover is what this node took and under what.
type takeover struct {
	epoch    elect.Epoch // raised in place, maybe
	took     elect.Epoch // under which it was acquired
	gone     bool
	previous elect.Node
	cause    elect.Cause
}

func newActions(a *Agent) *actions {
	return &actions{a: a, now: map[elect.VIPID]takeover{}, ended: make(chan struct{})}
}

// closePatience is how long actions that are killed may take to be gone.
const closePatience = 2 * time.Second

// run ends what runs when the agent does.
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

// await lets the chains under way end by themselves: a stop that killed its own
// release actions would be no handover.
func (x *actions) await(limit time.Duration) {
	idle := make(chan struct{})
	go func() { x.chains.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-time.After(limit):
	}
}

// transitions starts the chains that follow from what the machine decided. The
// acquire chain waits for the address: see bound.
func (x *actions) transitions(ts []elect.Transition) {
	for _, t := range ts {
		l := x.a.names().byID[t.VIP]
		if l == nil {
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
		case elect.Lapsed:
			x.a.vipTargets.stop(t.VIP)
		case elect.LetGo:
			x.a.vipTargets.stop(t.VIP)
			was := x.get(t.VIP)
			was.gone = true
			x.set(t.VIP, was)
			x.start(l, hooks.Release, t.Epoch, x.event(l, t.Epoch, x.get(t.VIP).previous, t.Cause), nil)
		case elect.RetireDue:
			x.start(l, hooks.Retire, t.Epoch, x.event(l, t.Epoch, x.get(t.VIP).previous, t.Cause), nil)
		}
	}
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
	ev := hooks.Event{VIP: l.name, Node: x.a.Self.Name, Previous: string(previous), Epoch: uint64(e), Reason: c.String()}
	if l.address.IsValid() {
		ev.Address = l.address.String()
	}
	return ev
}

func (x *actions) start(l *lease, phase hooks.Phase, e elect.Epoch, ev hooks.Event, done func(ok bool)) {
	x.chains.Add(1)
	ended := func(ok bool) {
		x.chains.Done()
		if done != nil {
			done(ok)
		}
	}
	x.a.Runner.Start(string(l.id), phase, uint64(e), ev, l.actions, func(o hooks.Outcome) {
		x.a.recorder.action(l.id, phase, elect.Epoch(o.Epoch), o)
	}, ended)
}

// bound is the binder's word that the address is there and announced: now the
// acquire actions run, then SIP has to answer on it.
func (x *actions) bound(id elect.VIPID, e elect.Epoch) {
	l, t := x.a.names().byID[id], x.get(id)
	x.start(l, hooks.Acquire, e, x.event(l, e, t.previous, t.cause), func(bool) { go x.verify(l, t.took) })
}

// verify asks the VIP itself with OPTIONS until it answers or time is up. The
// takeover that ran its actions may be over by then: what answers is another's.
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

// watch goes on asking the targets on the VIP, unless it is gone meanwhile.
func (x *actions) watch(l *lease, took, e elect.Epoch) {
	x.a.vipTargets.start(l, e)
	if t := x.get(l.id); t.gone || t.took != took {
		x.a.vipTargets.stop(l.id) // let go between the two: its stop came too early
	}
}

// verifyEvery is between two questions to a VIP that does not answer yet.
const verifyEvery = 50 * time.Millisecond

func (x *actions) answers(ctx context.Context, l *lease) error {
	for _, t := range verifiedBy(x.a.Config(), l) {
		to := sipTarget(x.a.Config(), t, x.a.Self.Name, l.address)
		for {
			_, err := sipcheck.Ping(ctx, to.Address, sipcheck.PingOptions{Local: x.a.Self.Address,
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

// verifiedBy are the targets that have to answer on a VIP: its own, or for want of
// any the node's.
func verifiedBy(c *config.Config, l *lease) []config.Target {
	if own := c.SIP.OnVIP(l.name); len(own) > 0 {
		return own
	}
	return c.SIP.OnNode()
}

// prepare gets this node ready to take a VIP over: its prepare actions, then a
// fresh OPTIONS to its own PBX (§4.4).
func (x *actions) prepare(p elect.PrepareVIP) {
	l := x.a.names().byID[p.VIP]
	ready := func(bool) { go x.ready(p) }
	if p.Again {
		ready(true)
		return
	}
	x.start(l, hooks.Prepare, p.Epoch+1, x.event(l, p.Epoch+1, p.Previous, p.Cause), ready)
}

func (x *actions) ready(p elect.PrepareVIP) {
	ctx, cancel := context.WithTimeout(context.Background(), x.a.probeTimeout()+checkTimeout(x.a.Config()))
	defer cancel()
	done := elect.Prepared{VIP: p.VIP, Epoch: p.Epoch}
	err := x.a.probes.fresh(ctx)
	if err == nil && p.Cause == elect.CauseCheck { // what makes the holder sick may be shared
		err = x.a.checks.fresh(ctx)
	}
	if err != nil {
		done.Failed = err.Error()
	}
	x.a.report(done)
}

// probeTimeout bounds one fresh probe of every own target.
func (a *Agent) probeTimeout() (d time.Duration) {
	for _, t := range a.Config().SIP.OnNode() {
		d += t.Timeout
	}
	return d + time.Second/10
}
