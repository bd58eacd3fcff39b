package hooks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Options is what a Runner needs from outside. Only Now is required.
type Options struct {
	// Service is the unix socket of the hooks service, which runs exec actions. If it is
	// "" or nobody listens there, the Runner runs them itself.
	Service string
	// FreeSWITCHAddress is the event socket, e.g. 127.0.0.1:8021.
	FreeSWITCHAddress string
	// FreeSWITCHPassword is called at each use, so that a changed file takes effect.
	FreeSWITCHPassword func() (string, error)
	// Mail is the server for mail actions. Host is this node's name, for its HELO.
	Mail MailServer
	Host string
	// Now reads the node's boot clock, in ns.
	Now func() int64
	// Dial opens connections to FreeSWITCH, memcached, web and mail servers; nil means
	// net.Dialer.DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Backoff is the pause before the n-th retry; nil means the function Backoff.
	Backoff func(n int) time.Duration
	// Answers sends SIP OPTIONS to an address and returns nil if it answers. That proves
	// that a FreeSWITCH profile works. userAgent goes into the User-Agent header.
	Answers func(ctx context.Context, at netip.AddrPort, userAgent string) error
	// UserAgent is for Answers.
	UserAgent string
	// Wait returns after d, or with ctx's error; nil means a real timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Journal keeps what a dying agent's actions have left undone; nil keeps nothing.
	Journal *Journal
	// JournalError is called when the journal cannot store a record; nil ignores that.
	// The actions run all the same.
	JournalError func(error)
}

// errEnding is why actions end when the Runner is closed.
var errEnding = errors.New("the agent is ending")

// Runner runs chains of actions. The chains of one VIP run one at a time, in the order
// they were started; different VIPs are independent. The vip of its methods is a VIP's
// address or a role's name, not the VIP's name. Its methods never wait for an action,
// except Close. What belongs to no VIP has its own lane, whose name begins with "-"; such
// a lane is never kept in the journal.
type Runner struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	lives   func(vip string) bool
	lanes   map[string]*lane
	working int           // number of goroutines
	idle    chan struct{} // closed when working reaches 0; nil if nobody waits
}

// lane is one VIP's queue. The Runner's mutex guards everything but disk.
type lane struct {
	vip     string
	ledger  ledger
	queue   []*chain
	current *chain        // the running chain, or nil
	busy    bool          // a goroutine works on this lane
	changed chan struct{} // closed when the ledger changes; nil if nobody waits
	taken   *Taken
	left    []*remnant // of an earlier agent, until started again
	disk    sync.Mutex // held to write one record at a time, the newest last
}

type chain struct {
	phase   Phase
	epoch   uint64 // guarded by the Runner's mutex, because Raised changes it
	event   Event
	actions []Action
	digest  uint64 // of the actions, set when the chain's turn comes; guarded like epoch
	next    int    // index of the action that is due or runs; guarded like epoch
	report  func(Outcome)
	done    func(End)
}

// NewRunner returns a Runner. It starts no goroutine. Call Close in the end.
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

// Start hands in the chain of one phase of one epoch and returns at once. The chain has
// the actions whose On is phase and whose When allows the event's cause. They run in
// order, whether or not earlier ones failed, unless a failed one gives the VIP back. If
// an earlier agent left this chain undone, the actions that had ended are left out.
//
// The chain waits for the VIP's earlier chains, whose timeouts limit that. Then a
// goroutine of the Runner calls report once per action, also for actions that the epochs
// forbid (see ledger), and done once at the end. While they run, both delay only this
// VIP's chains. They are never called from within Start. The actions carry epoch,
// whatever ev.Epoch says.
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

// Newer says that an epoch of the VIP is known, on whatever node. From then on no
// prepare, acquire or unreachable action of an older epoch starts. Running actions end by
// themselves.
func (r *Runner) Newer(vip string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lane(vip)
	l.ledger.newer(epoch)
	l.wake()
}

// Raised says that this node holds the VIP under a higher epoch without having let it go.
// That is no takeover: the prepare, acquire and unreachable chains of the old epoch
// continue, and carry the new epoch from their next action on. Call Raised instead of
// Newer, not after it.
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

// Close kills the running actions, lets all waiting ones be reported as skipped, and
// returns after the last call of done, or with ctx's error. A chain started after Close
// is skipped too. What was cut off stays in the journal as undone.
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

// background runs f in a goroutine that Close waits for. The caller holds the mutex.
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

// SetLease makes the Runner ask, right before each acquire or unreachable action and each
// retry of one, whether the VIP's lease is alive. A process that was frozen continues
// before anybody tells it that its epoch is over. lives must not block.
func (r *Runner) SetLease(lives func(vip string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lives = lives
}

// SetFreeSWITCH changes how later actions reach FreeSWITCH, after a reload.
func (r *Runner) SetFreeSWITCH(address string, password func() (string, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.FreeSWITCHAddress, r.opts.FreeSWITCHPassword = address, password
}

// SetUserAgent changes the User-Agent of later OPTIONS from actions, after a reload.
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

// FreeSWITCH returns how FreeSWITCH is reached now.
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

// chains returns the chains that have not ended, in order.
func (l *lane) chains() []*chain {
	if l.current == nil {
		return l.queue
	}
	return append([]*chain{l.current}, l.queue...)
}

// wake ends the pause before a retry, because the retry may no longer be allowed.
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

// begin records in the journal what is about to run.
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

// finished records the end of a chain, or that closing the Runner cut it off.
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
