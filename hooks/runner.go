package hooks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Options is what a Runner needs from outside. Now is required.
type Options struct {
	// Service is the unix socket of the hooks service, which runs exec actions; ""
	// or a socket where nobody listens: the Runner runs them itself.
	Service string
	// FreeSWITCHAddress is the event socket, e.g. 127.0.0.1:8021.
	FreeSWITCHAddress string
	// FreeSWITCHPassword is asked at each use, so that a changed file counts.
	FreeSWITCHPassword func() (string, error)
	// Mail is the server for mail actions, and Host this node's name, for its HELO.
	Mail MailServer
	Host string
	// Now reads the node's boot clock, in ns.
	Now func() int64
	// Dial opens connections to FreeSWITCH, memcached, web and mail servers; nil means net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Backoff is the pause before the n-th repetition; nil means Backoff.
	Backoff func(n int) time.Duration
	// Answers asks an address with SIP OPTIONS and returns nil if it answers, as
	// proof of a FreeSWITCH profile; userAgent is what it calls itself.
	Answers func(ctx context.Context, at netip.AddrPort, userAgent string) error
	// UserAgent is for Answers.
	UserAgent string
	// Wait returns after d, or with ctx's error; nil means in real time.
	Wait func(ctx context.Context, d time.Duration) error
	// Journal keeps what the actions of an agent that dies have left undone; nil
	// means that nothing is kept.
	Journal *Journal
	// JournalError hears that the journal took no record; nil means that nobody
	// does. The actions run all the same.
	JournalError func(error)
}

// errEnding is why actions end when the Runner is closed.
var errEnding = errors.New("the agent is ending")

// Runner runs chains of actions: for each VIP one at a time and in the order
// they were started, VIPs independently of each other. A VIP is known to it by
// its identity, an address or a role's name, not by the name of the VIP. Its
// methods never wait for an action, but for Close. What belongs to no VIP has a lane
// of its own, whose name begins with "-": that is never kept in the journal.
type Runner struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	lives   func(vip string) bool
	lanes   map[string]*lane
	working int           // goroutines
	idle    chan struct{} // closed when working falls to 0; nil if nobody waits
}

// lane is one VIP's queue; the Runner's mutex guards it, but for disk.
type lane struct {
	vip     string
	ledger  ledger
	queue   []*chain
	current *chain        // running, nil if none
	busy    bool          // has a goroutine
	changed chan struct{} // closed when the ledger changes; nil if nobody waits
	taken   *Taken
	left    []*remnant // of an agent before, until it is started again
	disk    sync.Mutex // one record at a time, and the newest last
}

type chain struct {
	phase   Phase
	epoch   uint64 // guarded by the Runner's mutex: Raised changes it
	event   Event
	actions []Action
	digest  uint64 // of the actions, once its turn has come; guarded as epoch is
	next    int    // the action that is due or runs; guarded as epoch is
	report  func(Outcome)
	done    func(End)
}

// NewRunner returns a Runner without a goroutine; Close it in the end.
func NewRunner(opts Options) *Runner {
	if opts.Now == nil {
		panic("hooks: Options.Now is required")
	}
	if opts.Dial == nil {
		opts.Dial = new(net.Dialer).DialContext
	}
	if opts.Backoff == nil {
		opts.Backoff = Backoff
	}
	if opts.Wait == nil {
		opts.Wait = wait
	}
	if opts.JournalError == nil {
		opts.JournalError = func(error) {}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &Runner{opts: opts, ctx: ctx, cancel: cancel, lanes: map[string]*lane{}}
	for vip, rec := range opts.Journal.found() {
		l := r.lane(vip)
		l.ledger, l.taken, l.left = rec.Epochs, rec.Taken, rec.Left
	}
	return r
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start hands in the chain of one phase of one epoch and returns at once. Of the
// actions those run whose On is phase and whose When has the event's cause, in
// order, whether or not earlier ones failed, unless one that failed gives the VIP
// back. Of a chain that an agent before has left undone what had ended is left out.
//
// The chain waits for the VIP's running one, which its timeouts bound. Then, in a
// goroutine of the Runner, report is called once per action, also for those that
// the epochs forbid (see ledger), and done once at the end. Both hold up only this
// VIP's chains while they run, and are never called from within Start. The actions
// carry epoch, whatever ev.Epoch says.
func (r *Runner) Start(vip string, phase Phase, epoch uint64, ev Event, actions []Action, report func(Outcome), done func(End)) {
	c := &chain{phase: phase, epoch: epoch, event: ev, report: report, done: done}
	for _, a := range actions {
		if a.appliesTo(phase, ev.Cause) {
			c.actions = append(c.actions, a)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane(vip)
	if len(l.left) > 0 {
		l.resume(c)
	}
	l.ledger.start(phase, epoch)
	l.queue = append(l.queue, c)
	l.wake()
	if l.busy {
		r.background(func() { r.persist(l) })
		return
	}
	l.busy = true
	r.background(func() { r.work(l) })
}

// Newer says that an epoch of the VIP is known, wherever it is held: no prepare or
// acquire action of an older one starts any more. What runs ends by itself.
func (r *Runner) Newer(vip string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane(vip)
	l.ledger.newer(epoch)
	l.wake()
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
	for _, c := range l.chains() {
		if c.phase.takes() && c.epoch == from {
			c.epoch = to
		}
	}
	if l.taken != nil && l.taken.Epoch == from {
		l.taken = &Taken{Epoch: to, Acquired: l.taken.Acquired, Event: l.taken.Event}
		r.background(func() { r.persist(l) })
	}
	l.wake()
}

// Close kills what runs, has all that waits reported as skipped, and returns when
// the last done was called, or with ctx's error. A chain started after Close is
// skipped as well. What was cut off stays in the journal as undone.
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

// background runs f in a goroutine that Close waits for; the mutex is held.
func (r *Runner) background(f func()) {
	r.working++
	go func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.working--
			if r.working == 0 && r.idle != nil {
				close(r.idle)
				r.idle = nil
			}
		}()
		f()
	}()
}

// SetLease has the Runner ask, right before each action of what is held and each
// repetition, whether the VIP's lease lives: a process that stood still goes on
// where it was, before anybody tells it that its epoch is over. lives must not wait.
func (r *Runner) SetLease(lives func(vip string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lives = lives
}

// SetFreeSWITCH changes where and how later actions reach FreeSWITCH, after a
// reload.
func (r *Runner) SetFreeSWITCH(address string, password func() (string, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.FreeSWITCHAddress, r.opts.FreeSWITCHPassword = address, password
}

// SetUserAgent changes what later OPTIONS of actions call themselves, after a reload.
func (r *Runner) SetUserAgent(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.UserAgent = name
}

func (r *Runner) userAgent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.UserAgent
}

// FreeSWITCH is how FreeSWITCH is reached now.
func (r *Runner) FreeSWITCH() (address string, password func() (string, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.FreeSWITCHAddress, r.opts.FreeSWITCHPassword
}

// SetMail changes the server for later mails, after a reload.
func (r *Runner) SetMail(server MailServer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.Mail = server
}

func (r *Runner) mail() MailServer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.Mail
}

func (r *Runner) lane(vip string) *lane {
	l := r.lanes[vip]
	if l == nil {
		l = &lane{vip: vip}
		r.lanes[vip] = l
	}
	return l
}

// chains are all that have not ended, in order.
func (l *lane) chains() []*chain {
	if l.current == nil {
		return l.queue
	}
	return append([]*chain{l.current}, l.queue...)
}

// wake ends the pause before a repetition: it may not be allowed any more.
func (l *lane) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// work runs a lane's chains until none is left.
func (r *Runner) work(l *lane) {
	for c := r.next(l); c != nil; c = r.next(l) {
		r.begin(l, c)
		end := r.runChain(l, c)
		r.finished(l, c)
		r.persist(l)
		c.done(end)
	}
}

func (r *Runner) next(l *lane) *chain {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(l.queue) == 0 {
		l.busy = false
		return nil
	}
	l.current, l.queue = l.queue[0], l.queue[1:]
	return l.current
}

// begin brings to the journal what is about to run.
func (r *Runner) begin(l *lane, c *chain) {
	sum := digest(c.actions)
	r.mu.Lock()
	c.digest = sum
	if c.phase == Acquire && !l.taken.is(c.epoch) {
		l.taken = &Taken{Epoch: c.epoch, Event: c.event}
	}
	r.mu.Unlock()
	r.persist(l)
}

// finished notes the end of a chain, unless the end of the Runner cut it off.
func (r *Runner) finished(l *lane, c *chain) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.current = nil
	if c.next < len(c.actions) {
		l.left = append(l.left, &remnant{Phase: c.phase, Epoch: c.epoch, Event: c.event, Digest: c.digest, Next: c.next})
		return
	}
	switch {
	case c.phase == Acquire && l.taken.is(c.epoch):
		l.taken = &Taken{Epoch: c.epoch, Acquired: true, Event: l.taken.Event}
	case c.phase == Release && l.taken != nil && l.taken.Epoch <= c.epoch:
		l.taken = nil
	}
}
