package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"sipalive/elect"
)

// counters count what the loop itself does.
type counters struct {
	steps        atomic.Uint64
	dropped      atomic.Uint64 // packets that found the queue full
	sendErrors   atomic.Uint64
	storeErrors  atomic.Uint64 // the runtime directory refused a record
	fenceErrors  atomic.Uint64 // deadlines that the kernel refused
	recordsLost  atomic.Uint64 // facts that found the recorder's queue full
	slowestStep  atomic.Int64  // ns
	latestWakeUp atomic.Int64  // the latest wake-up, ns past its deadline
}

// loop is THE loop. It takes events in order, lets the machine decide, and carries out
// the effects. It waits for nothing but the next event.
func (a *Agent) loop(ctx context.Context) error {
	alarm := a.Alarms.New(func() { poke(a.due) })
	defer alarm.Stop()
	alarm.Set(int64(a.Now()))
	for {
		select {
		case ev := <-a.events:
			a.step(ev)
		case ev := <-a.packets:
			a.step(ev)
		case q := <-a.queries:
			q()
		case <-a.due:
			a.noteWakeUp()
			a.drain()
			a.step(elect.Tick{})
		case <-a.stopped:
			return nil
		case <-ctx.Done():
			return nil
		}
		alarm.Set(int64(a.Machine.Deadline()))
	}
}

// drain takes the events that had already arrived before it lets time act: a peer whose
// heartbeat waits in the queue is not silent.
func (a *Agent) drain() {
	for range cap(a.packets) {
		select {
		case ev := <-a.events:
			a.step(ev)
		case ev := <-a.packets:
			a.step(ev)
		default:
			return
		}
	}
}

func (a *Agent) noteWakeUp() {
	due := a.Machine.Deadline()
	if late := int64(a.Now() - due); due != 0 && late > a.stats.latestWakeUp.Load() { // 0: before the first step
		a.stats.latestWakeUp.Store(late)
	}
}

func (a *Agent) step(ev elect.Event) {
	start := a.Now()
	if a.unstored {
		a.carryOut(a.Machine.Step(start, elect.Unstored{}))
	}
	a.carryOut(a.Machine.Step(start, ev))
	a.stats.steps.Add(1)
	if took := int64(a.Now() - start); took > a.stats.slowestStep.Load() {
		a.stats.slowestStep.Store(took)
	}
}

// carryOut does what the machine decided, in the order that keeps it safe: first the
// record in the runtime directory, then the fence's deadlines and the binder's level,
// then the packets. What people and scripts are told is only queued here and runs off the
// loop.
func (a *Agent) carryOut(eff elect.Effects) {
	stored := a.storeRuntime(eff.Runtime)
	// Also where storing failed: then no packet tells of the grant, and an end without a
	// recorded grant has no effect.
	for _, g := range eff.Granted {
		a.Directory.grants.put(g.VIP, g.Epoch, 0, g.Until)
	}
	a.recorder.transitions(eff.Transitions)
	a.actions.transitions(eff.Transitions)
	a.binder.want(eff.Want, stored)
	a.locks.want(eff.Locks, stored)
	if stored {
		for _, out := range eff.Send {
			if err := a.network.Send(out); err != nil {
				a.stats.sendErrors.Add(1)
			}
			if _, beat := out.Msg.(elect.Heartbeat); beat {
				a.grid.beat(time.Now(), a.Config().Timing.Heartbeat)
			}
		}
	}
	if stored {
		a.alone.ask(eff.Questions)
	}
	for _, n := range eff.Probe {
		a.probes.probeNow(n)
	}
	for _, p := range eff.Prepare {
		a.actions.prepare(p)
	}
	for _, f := range eff.Flush {
		a.actions.flush(f)
	}
	if eff.Durable != nil {
		a.durables.put(eff.Durable)
	}
	for _, ans := range eff.Answers {
		a.answer(ans)
	}
	if eff.Stopped {
		a.finishStop()
	}
}

// storeRuntime puts the record into the runtime directory. While that fails, nothing that
// could depend on the record leaves, and step tells the machine before the next event.
func (a *Agent) storeRuntime(r *elect.Runtime) bool {
	if r == nil {
		return !a.unstored
	}
	err := a.Directory.StoreRuntime(r)
	if err != nil {
		a.stats.storeErrors.Add(1)
		a.recorder.warn("store the votes", err)
	}
	a.unstored = err != nil
	return !a.unstored
}

func (a *Agent) answer(ans elect.CommandAnswer) {
	if ch := a.waiting[ans.ID]; ch != nil {
		delete(a.waiting, ans.ID)
		ch <- ans
	}
}

func (a *Agent) finishStop() {
	select {
	case <-a.stopped:
	default:
		close(a.stopped)
	}
}

// errEnded is the answer to questions that come after the loop has ended.
var errEnded = errors.New("the agent is ending")

// ask has the loop run f between two steps, and waits until it has run.
func (a *Agent) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	q := func() { f(); close(done) }
	select {
	case a.queries <- q:
	case <-a.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-a.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
