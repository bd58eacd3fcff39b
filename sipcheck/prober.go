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

// Options come from outside the protocol. The zero value works.
type Options struct {
	// Local is the address to send from: the node's static one, never a VIP.
	// Invalid: the kernel chooses.
	Local netip.Addr
	// Security is for targets over TLS.
	Security Security
	// Deliver gets a Result from Run's goroutine: when the verdict changes, when
	// a probe asked for ends, when a suspicion begins (Misses 1) and when one is
	// dispelled. It must not block: the next probe waits for it.
	Deliver func(Result)
	// Grid, if set, has regular probes start at whole intervals after what it gives,
	// none later than without: probers that share it wake the process once for all of
	// them. It is asked at the end of each probe, and may change.
	Grid func() time.Time
	// Pardon, if set, is asked at each listed code: while it says so, that answer is
	// life, too. It must not block.
	Pardon func() bool
	// Hesitates, if set, is called from Run's goroutine when a target that is up has not
	// answered by the time a probe is repeated, or sooner where others could not agree
	// in time with what the probes that follow conclude. At most once in 5 s: a server
	// that has become slow answers all its probes late. It must not block.
	Hesitates func(started time.Time)
	// Every delivers each probe's Result.
	Every bool
	// Now is the clock, time.Now by default; it must carry a monotonic reading.
	Now func() time.Time
	// Alarm makes an alarm on that clock that calls ring, which never waits; by
	// default one of the Go runtime's timers.
	Alarm func(ring func()) Alarm
	// Rand draws branches, tags and Call-IDs; by default a ChaCha8 seeded by the
	// kernel. Only Run's goroutine uses it.
	Rand *rand.Rand
}

// Alarm calls a function when its time has come, in whichever goroutine.
type Alarm interface {
	// Set replaces what was set before; the past is at once.
	Set(at time.Time)
	Stop()
}

// Prober asks one target whether it answers. One goroutine (Run) owns its link
// and state; everything else leaves a note and wakes it.
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
	asks   []chan outcome // Probe calls that no probe has been started for

	// Run's own from here on.
	judge    judge
	flight   flight
	earlier  []flight  // unanswered so far, with time left
	nextAt   time.Time // the next regular probe
	lastUrge time.Time // when hurry was last acted on
	urgent   bool      // hurry, taken but not yet acted on
	lastEnd  time.Time // when the end of an idle connection last caused a probe
	lastHint time.Time // when Hesitates was last called
	// When the last Fall probes began, as far as none had a good answer since, and when
	// the first of those that the verdict rests on.
	missed []time.Time
	since  time.Time
}

// NewProber makes a prober for one target; zero fields of t get the defaults. It
// opens no socket and starts nothing before Run.
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

// timer is an Alarm of the Go runtime's.
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

// Target is what this prober asks, defaults filled in.
func (p *Prober) Target() Target { return p.target }

// Stats is a copy of the counters.
func (p *Prober) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// ProbeNow makes a probe leave at once instead of at the next interval. It never
// blocks; calls that come faster than one per 10 ms are taken together. A probe
// already under way is sent again, and followed by another if it stays unanswered.
// Over TCP and TLS it goes by a connection of its own.
func (p *Prober) ProbeNow() {
	p.hurry.Store(true)
	p.link.wake()
}

// Probe asks once more and returns that probe's own answer, whatever its code:
// no packet sent before the call counts. It needs Run under way. The error is a
// *ProbeError (no answer, or the port refused), ctx's, or ErrStopped.
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

// Run probes until ctx ends and returns nil then. Errors of the network are not
// its errors: they are outcomes. It can be called once.
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

// wait sleeps until something arrives, the time has come, or wake is called.
func (p *Prober) wait(until time.Time) {
	p.alarm.Set(until)
	if a, ok := p.link.wait(); ok {
		p.received(a)
	}
}
