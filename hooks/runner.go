package hooks

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Options is what a Runner needs from outside. Now is required.
type Options struct {
	// FreeSWITCHAddress is the event socket, e.g. 127.0.0.1:8021.
	FreeSWITCHAddress string
	// FreeSWITCHPassword is asked at each use, so that a changed file counts.
	FreeSWITCHPassword func() (string, error)
	// Now reads the node's boot clock, in ns.
	Now func() int64
	// Dial opens connections to FreeSWITCH and memcached; nil means net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// errEnding is why actions end when the Runner is closed.
var errEnding = errors.New("the agent is ending")

// Runner runs chains of actions: for each VIP one at a time and in the order
// they were started, VIPs independently of each other. Its methods never wait for
// an action, but for Close.
type Runner struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	lanes   map[string]*lane
	working int           // lanes with a goroutine
	idle    chan struct{} // closed when working falls to 0; nil if nobody waits
}

// lane is one VIP's queue; the Runner's mutex guards it.
type lane struct {
	ledger  ledger
	queue   []*chain
	current *chain // running, nil if none
	busy    bool   // has a goroutine
}

type chain struct {
	phase   Phase
	epoch   uint64 // guarded by the Runner's mutex: Raised changes it
	event   Event
	actions []Action
	report  func(Outcome)
	done    func(ok bool)
}

// NewRunner returns a Runner without a goroutine; Close it in the end.
func NewRunner(opts Options) *Runner {
	if opts.Now == nil {
		panic("hooks: Options.Now is required")
	}
	if opts.Dial == nil {
		opts.Dial = new(net.Dialer).DialContext
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Runner{opts: opts, ctx: ctx, cancel: cancel, lanes: map[string]*lane{}}
}

// Start hands in the chain of one phase of one epoch and returns at once. Of the
// actions those run whose On is phase, in order, whether or not earlier ones
// failed.
//
// The chain waits for the VIP's running one, which its timeouts bound. Then, in a
// goroutine of the Runner, report is called once per action, also for those that
// the epochs forbid (see ledger), and done once at the end: ok means that all ran
// and succeeded. Both hold up only this VIP's chains while they run, and are never
// called from within Start. The actions carry epoch, whatever ev.Epoch says.
func (r *Runner) Start(vip string, phase Phase, epoch uint64, ev Event, actions []Action, report func(Outcome), done func(ok bool)) {
	c := &chain{phase: phase, epoch: epoch, event: ev, report: report, done: done}
	for _, a := range actions {
		if a.On == phase || !a.On.valid() { // an invalid one is reported, not lost
			c.actions = append(c.actions, a)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane(vip)
	l.ledger.start(phase, epoch)
	l.queue = append(l.queue, c)
	if !l.busy {
		l.busy = true
		r.working++
		go r.work(l)
	}
}

// Newer says that an epoch of the VIP is known, wherever it is held: no prepare or
// acquire action of an older one starts any more. What runs ends by itself.
func (r *Runner) Newer(vip string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lane(vip).ledger.newer(epoch)
}

// Raised says that this node, without letting go, holds the VIP under a higher
// epoch: no takeover, so the chains of the old epoch go on, and carry the new one
// from their next action on. Call it instead of Newer, not after it.
func (r *Runner) Raised(vip string, from, to uint64) {
	if to <= from {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane(vip)
	l.ledger.raised(to)
	for _, c := range append([]*chain{l.current}, l.queue...) {
		if c != nil && c.phase.takes() && c.epoch == from {
			c.epoch = to
		}
	}
}

// Close kills what runs, has all that waits reported as skipped, and returns when
// the last done was called, or with ctx's error. A chain started after Close is
// skipped as well.
func (r *Runner) Close(ctx context.Context) error {
	r.cancel(errEnding)
	r.mu.Lock()
	if r.working == 0 {
		r.mu.Unlock()
		return nil
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetFreeSWITCH changes where and how later actions reach FreeSWITCH, after a
// reload.
func (r *Runner) SetFreeSWITCH(address string, password func() (string, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.FreeSWITCHAddress, r.opts.FreeSWITCHPassword = address, password
}

// freeSWITCH is how FreeSWITCH is reached now.
func (r *Runner) freeSWITCH() (address string, password func() (string, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.FreeSWITCHAddress, r.opts.FreeSWITCHPassword
}

func (r *Runner) lane(vip string) *lane {
	l := r.lanes[vip]
	if l == nil {
		l = &lane{}
		r.lanes[vip] = l
	}
	return l
}

// work runs a lane's chains until none is left.
func (r *Runner) work(l *lane) {
	for c := r.next(l); c != nil; c = r.next(l) {
		c.done(r.runChain(l, c))
	}
}

func (r *Runner) next(l *lane) *chain {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.current = nil
	if len(l.queue) > 0 {
		l.current, l.queue = l.queue[0], l.queue[1:]
		return l.current
	}
	l.busy = false
	r.working--
	if r.working == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
	return nil
}

func (r *Runner) runChain(l *lane, c *chain) bool {
	_, refused := r.admit(l, c)
	ok := refused == ""
	for _, a := range c.actions {
		o := r.runAction(l, c, a)
		ok = ok && o.OK
		c.report(o)
	}
	return ok
}

// admit is the moment an action starts as far as epochs go: a Newer that returns
// before it stops the action, one that comes after finds it running.
func (r *Runner) admit(l *lane, c *chain) (epoch uint64, refused string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return c.epoch, context.Cause(r.ctx).Error()
	}
	return c.epoch, l.ledger.refuses(c.phase, c.epoch)
}

func (r *Runner) runAction(l *lane, c *chain, a Action) Outcome {
	o := Outcome{Action: a.label(), Started: r.opts.Now()}
	var refused string
	if o.Epoch, refused = r.admit(l, c); refused != "" {
		o.Skipped, o.Err = true, "skipped: "+refused
		return o
	}
	ev := c.event
	ev.Epoch = o.Epoch
	res := r.runVerb(a, ev.environ(c.phase))
	o.Took = time.Duration(r.opts.Now() - o.Started)
	o.OK = res.err == nil
	if res.err != nil {
		o.Err = res.err.Error()
	}
	o.Note, o.Output = res.note, res.output
	return o
}

// result is what a verb hands back; err and note are one line each.
type result struct {
	err    error
	note   string
	output string
}

func (r *Runner) runVerb(a Action, env []string) result {
	if err := a.Check(); err != nil {
		return result{err: err}
	}
	ctx, cancel := context.WithTimeout(r.ctx, a.timeout())
	defer cancel()
	switch {
	case len(a.Exec) > 0:
		return runExec(ctx, a.timeout(), a.Exec, env, killGroup)
	case len(a.FreeSWITCH) > 0:
		return r.runFreeSWITCH(ctx, a)
	default:
		return r.runMemcached(ctx, a)
	}
}

// ended reports whether err of a connection is due to the end of ctx. A dialer may
// notice the deadline a moment before ctx does.
func ended(ctx context.Context, err error) bool {
	var timeout net.Error
	return ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout()
}

// whyEnded says which end of ctx an action met, its timeout or the agent's; what
// is what the timeout waited for in vain.
func whyEnded(ctx context.Context, what string, timeout time.Duration) string {
	if cause := context.Cause(ctx); errors.Is(cause, errEnding) {
		return cause.Error()
	}
	return what + " within " + timeout.String()
}
