package hooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// runChain runs the rest of a chain. It stops in the middle only if the Runner is closed.
// Then the rest is reported as skipped, and next stays.
func (r *Runner) runChain(l *lane, c *chain) End {
	epoch, refused := r.admit(l, c)
	end := End{OK: refused == ""}
	for _, a := range c.actions[c.next:] {
		if end.GiveBack != "" {
			c.report(Outcome{Action: a.label(), Epoch: epoch, Started: r.opts.Now(), Skipped: true, Err: "skipped: the VIP is given back: " + end.GiveBack})
			r.passed(c)
			continue
		}
		o := r.runAction(l, c, a)
		end.OK = end.OK && o.OK
		if r.ctx.Err() == nil {
			r.passed(c)
			r.persist(l)
			if a.GiveBack && !o.OK && !o.Skipped {
				end.GiveBack = o.Err
			}
		}
		c.report(o)
	}
	return end
}

func (r *Runner) passed(c *chain) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.next++
}

// admit is when an action starts as far as epochs go. A Newer that returns before admit
// stops the action; one that comes later finds it running.
func (r *Runner) admit(l *lane, c *chain) (epoch uint64, refused string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return c.epoch, context.Cause(r.ctx).Error()
	}
	return c.epoch, r.refuses(l, c)
}

// refuses says why no action of the chain may start now, "" if one may. The caller holds
// the mutex.
func (r *Runner) refuses(l *lane, c *chain) string {
	if why := l.ledger.refuses(c.phase, c.epoch); why != "" {
		return why
	}
	if c.phase.held() && r.lives != nil && !r.lives(l.vip) {
		return fmt.Sprintf("the lease of epoch %d is over", c.epoch)
	}
	return ""
}

// runAction tries an action until it succeeds, has no retries left, or the epochs forbid
// it.
func (r *Runner) runAction(l *lane, c *chain, a Action) (o Outcome) {
	o = Outcome{Action: a.label(), Started: r.opts.Now()}
	for {
		epoch, refused := r.admit(l, c)
		switch {
		case refused == "":
			r.try(c, a, epoch, &o)
		case o.Attempts == 0:
			o.Epoch, o.Skipped, o.Err = epoch, true, "skipped: "+refused
			return o
		default:
			o.Err += "; not tried again: " + refused
		}
		o.Took = time.Duration(r.opts.Now() - o.Started)
		if o.OK || refused != "" || o.Attempts > a.Retries || r.ctx.Err() != nil {
			return o
		}
		r.pause(l, c, r.opts.Backoff(o.Attempts))
	}
}

// try runs an action once.
func (r *Runner) try(c *chain, a Action, epoch uint64, o *Outcome) {
	ev := c.event
	if c.phase != Notice { // a notice tells about an epoch but does not belong to one
		ev.Epoch = epoch
	}
	res := r.runVerb(a, c.phase, ev)
	o.Attempts++
	o.Epoch, o.OK, o.Err, o.Note, o.Output = epoch, res.err == nil, "", res.note, res.output
	if res.err != nil {
		o.Err = res.err.Error()
		if o.Attempts > 1 {
			o.Err += fmt.Sprintf(" (tried %d times)", o.Attempts)
		}
	}
}

// pause waits before a retry, but only while the retry is still allowed.
func (r *Runner) pause(l *lane, c *chain, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		r.mu.Lock()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed, refused := l.changed, r.refuses(l, c)
		r.mu.Unlock()
		if refused != "" {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// result is what a verb returns; err and note are one line each.
type result struct {
	err    error
	note   string
	output string
}

func (r *Runner) runVerb(a Action, phase Phase, ev Event) result {
	if err := a.Check(); err != nil {
		return result{err: err}
	}
	ctx, cancel := context.WithTimeout(r.ctx, a.timeout())
	defer cancel()
	switch {
	case len(a.Exec) > 0:
		return r.exec(ctx, a, ev.environ(phase))
	case len(a.FreeSWITCH) > 0:
		return r.runFreeSWITCH(ctx, a, phase)
	case a.HTTP != "":
		return r.runHTTP(ctx, a, phase, ev)
	case len(a.Mail) > 0:
		return r.runMail(ctx, a, ev)
	default:
		return r.runMemcached(ctx, a)
	}
}

// ended reports whether a connection's error is due to the end of ctx. A dialer may
// notice the deadline a moment before ctx does.
func ended(ctx context.Context, err error) bool {
	var timeout net.Error
	return ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout()
}

// whyEnded says what ended an action: its timeout or the agent's end. what describes what
// the timeout waited for in vain.
func whyEnded(ctx context.Context, what string, timeout time.Duration) string {
	if cause := context.Cause(ctx); errors.Is(cause, errEnding) {
		return cause.Error()
	}
	return what + " within " + timeout.String()
}
