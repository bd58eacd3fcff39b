package sipcheck

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// ErrStopped is what Probe returns once Run has ended.
var ErrStopped = errors.New("the prober has ended")

// Options are a prober's settings that are not part of the Target. The zero value works.
type Options struct {
	// Local is the address to send from: the node's static address, never a VIP. If it is
	// invalid, the kernel chooses.
	Local netip.Addr
	// Security is used for targets over TLS only.
	Security Security
	// Deliver gets a Result from Run's goroutine in four cases: the verdict changes, a
	// requested probe ends, a suspicion begins (Misses is 1), or a suspicion ends.
	// Deliver must not block: the next probe waits for it.
	Deliver func(Result)
	// Grid, if set, returns a time. Regular probes then start at whole intervals after
	// that time, never later than they would without Grid. So probers that share a Grid
	// wake the process once for all of them. Grid is called at the end of each probe; its
	// result may change.
	Grid func() time.Time
	// Pardon, if set, is called for each answer with a listed code. If it returns true,
	// that answer counts as healthy too. It must not block.
	Pardon func() bool
	// Hesitates, if set, is called from Run's goroutine when a target that is up has not
	// answered by the time its probe is repeated. It is called sooner if the probes that
	// would follow a silence end sooner, so that other nodes can still agree in time. It
	// is called at most once in 5 s, because a server that has become slow answers all
	// its probes late. It must not block.
	Hesitates func(started time.Time)
	// Every makes Deliver get each probe's Result.
	Every bool
	// Now is the clock, time.Now by default; it must carry a monotonic reading.
	Now func() time.Time
	// Alarm makes an alarm on that clock. The alarm calls ring, which never blocks. The
	// default is a timer of the Go runtime.
	Alarm func(ring func()) Alarm
	// Rand draws branches, tags and Call-IDs. The default is a ChaCha8 seeded by the
	// kernel. Only Run's goroutine uses it.
	Rand *rand.Rand
}

// Alarm calls a function at a set time, in any goroutine.
type Alarm interface {
	// Set replaces the time set before. A time in the past rings at once.
	Set(at time.Time)
	Stop()
}

// Prober asks one target whether it answers. One goroutine (Run) owns its link and state.
// Other goroutines leave a note and wake that goroutine.
type Prober struct {
	target Target
	opts   Options
	parser *sip.Parser

	link    link
	alarm   Alarm
	hurry   atomic.Bool // ProbeNow was called
	started atomic.Bool
	done    chan struct{} // closed when Run has ended

	mu     sync.Mutex
	stats  Stats
	rtts   rtts
	report Report         // without Target and RTT
	asks   []chan outcome // Probe calls that wait for a probe to start

	// Only Run's goroutine uses the fields below.
	judge    judge
	flight   flight
	earlier  []flight  // unanswered probes whose Timeout has not passed yet
	nextAt   time.Time // the next regular probe
	lastUrge time.Time // when Run last acted on hurry
	urgent   bool      // hurry has been taken, but not yet acted on
	lastEnd  time.Time // when the end of an idle connection last made Run probe
	lastHint time.Time // when Hesitates was last called
	// missed has the start times of the last Fall probes that failed since the last good
	// answer. since is the start of the first probe that the verdict rests on.
	missed []time.Time
	since  time.Time
}

// NewProber makes a prober for one target. Zero fields of t get the defaults. Nothing
// runs and no socket is open before Run.
func NewProber(t Target, opts Options) *Prober {
	t = t.withDefaults()
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Deliver == nil {
		opts.Deliver = func(Result) {}
	}
	if opts.Rand == nil {
		var seed [32]byte
		cryptorand.Read(seed[:]) // never fails since Go 1.24
		opts.Rand = rand.New(rand.NewChaCha8(seed))
	}
	if opts.Alarm == nil {
		opts.Alarm = func(ring func()) Alarm { return newTimer(opts.Now, ring) }
	}
	p := &Prober{
		target: t, opts: opts, parser: newAnswerParser(), link: newLink(t, opts),
		done:  make(chan struct{}),
		judge: judge{fall: t.Fall, rise: t.Rise},
	}
	p.alarm = opts.Alarm(p.link.wake)
	return p
}

// timer is an Alarm that uses a timer of the Go runtime.
type timer struct {
	now func() time.Time
	*time.Timer
}

func newTimer(now func() time.Time, ring func()) timer {
	t := timer{now, time.AfterFunc(time.Hour, ring)}
	t.Stop()
	return t
}

func (t timer) Set(at time.Time) { t.Reset(at.Sub(t.now())) }

func (t timer) Stop() { t.Timer.Stop() }

func newLink(t Target, opts Options) link {
	d := dialer{local: opts.Local, remote: t.Address, now: opts.Now}
	switch t.Transport {
	case TCP:
		return newStreams(d, t.Timeout)
	case TLS:
		d.secure = &opts.Security
		return newStreams(d, t.Timeout)
	}
	return newDatagrams(opts.Local, t.Address)
}

// Target returns the target with its defaults filled in.
func (p *Prober) Target() Target { return p.target }

// Stats returns a copy of the counters.
func (p *Prober) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// ProbeNow makes a probe leave at once instead of at the next interval. It never blocks.
// Calls that come faster than one per 10 ms become one probe. If a probe is under way, it
// is sent again; if it stays unanswered, another one follows. Over TCP and TLS the probe
// uses a new connection.
func (p *Prober) ProbeNow() {
	p.hurry.Store(true)
	p.link.wake()
}

// Probe sends a new probe and returns that probe's answer, whatever its code. An answer
// to a packet that left before the call does not count. Run must be running. The error is
// a *ProbeError (no answer, or the port refused), ctx's error, or ErrStopped.
func (p *Prober) Probe(ctx context.Context) (Answer, error) {
	ch := make(chan outcome, 1)
	p.mu.Lock()
	p.asks = append(p.asks, ch)
	p.mu.Unlock()
	p.link.wake()
	select {
	case o := <-ch:
		return o.answer, o.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	case <-p.done:
	}
	select { // the outcome may have come just before the end
	case o := <-ch:
		return o.answer, o.err
	default:
		return Answer{}, ErrStopped
	}
}

// Run probes until ctx ends, and then returns nil. Network errors are not returned: they
// are outcomes of probes. Run can be called only once.
func (p *Prober) Run(ctx context.Context) error {
	if p.started.Swap(true) {
		return fmt.Errorf("probe %s of %s: already running (one Run per prober)", p.target.Name, p.target.Node)
	}
	defer close(p.done)
	if !p.target.Address.IsValid() || p.target.Address.Port() == 0 {
		return fmt.Errorf("probe %s of %s: no address and port to ask (give both)", p.target.Name, p.target.Node)
	}
	defer context.AfterFunc(ctx, p.link.wake)()
	defer p.link.close()
	defer p.alarm.Stop()
	p.nextAt = p.opts.Now()
	for ctx.Err() == nil {
		p.step(p.opts.Now())
		p.wait(p.due())
	}
	return nil
}

// wait sleeps until a message arrives, the time has come, or wake is called.
func (p *Prober) wait(until time.Time) {
	p.alarm.Set(until)
	if a, ok := p.link.wait(); ok {
		p.received(a)
	}
}
