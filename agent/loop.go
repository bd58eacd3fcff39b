package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"sipalive/elect"
)

// counters are what the loop itself counts.
type counters struct {
	steps        atomic.Uint64
	dropped      atomic.Uint64 // packets that found the queue full
	sendErrors   atomic.Uint64
	storeErrors  atomic.Uint64 // the runtime directory refused a record
	fenceErrors  atomic.Uint64 // deadlines that the kernel would not take
	recordsLost  atomic.Uint64 // facts the log was too slow for
	slowestStep  atomic.Int64  // ns
	latestWakeUp atomic.Int64  // ns past a deadline, the worst
}

// loop is THE loop: it takes what happened, in order, lets the machine decide,
// and carries the effects out. Nothing in it waits for anything but the next
// event.
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

// drain takes what had already arrived before time is allowed to speak: a
// heartbeat in the queue is no silence.
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

// carryOut does what the machine decided, in the order that keeps it safe: the
// record in the runtime directory first, then the fence's deadlines and the word to
// the binder, then the packets; people and scripts are told last, off the loop.
func (a *Agent) carryOut(eff elect.Effects) {
	stored := a.storeRuntime(eff.Runtime)
	for _, g := range eff.Granted { // of what was not stored no word leaves, and its end ends nothing
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

// storeRuntime puts the record into the runtime directory. While that fails
// nothing leaves that could depend on it, and the machine is told before it
// hears anything else.
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

// errEnded is the answer to questions that come too late.
var errEnded = errors.New("the agent is ending")

// ask lets the loop run f between two steps and waits for it.
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
