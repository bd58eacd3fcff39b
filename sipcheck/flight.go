package sipcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

const (
	// urgentGap limits what ProbeNow can send to 100 packets a second, however often the
	// kernel reports destroyed sockets.
	urgentGap = 10 * time.Millisecond
	// A socket that fails is opened again after firstBackoff. The wait then doubles each
	// time, up to lastBackoff.
	firstBackoff = 10 * time.Millisecond
	lastBackoff  = time.Second
	// timer1 and timer2 space the packets of one probe over UDP like those of any
	// request: T1, then twice that, and so on, at most T2 (RFC 3261 §17.1.2.2, timer E).
	// With a timeout below 2*T1 the second packet leaves after half the timeout.
	timer1 = 500 * time.Millisecond
	timer2 = 4 * time.Second
	// hintSlack and hintGap limit the calls of Options.Hesitates. The call comes at most
	// hintSlack later than the probes that would follow a silence take, and at most once
	// in hintGap.
	hintSlack = 200 * time.Millisecond
	hintGap   = 5 * time.Second
	// endGap limits how often a server that closes its connections makes Run probe.
	endGap = time.Second
	// lateness: if Run comes more than this after the deadline, it was starved of CPU.
	lateness = 5 * time.Millisecond
	// drainMost bounds how many messages are read that had arrived before a timeout. So a
	// flood cannot keep a dead server alive.
	drainMost = 4096
)

// flight is the probe under way. There is only one at a time, so outcomes come in order,
// and Fall failed probes mean Fall timeouts.
type flight struct {
	active      bool
	asked       bool // deliver its result: ProbeNow asked for it
	again       bool // ProbeNow was called during the probe: probe once more if this one stays unanswered
	pushed      bool // sent again because a Probe waits for its end
	redialled   bool // the connection ended during the probe, and a new one was opened at once
	refused     bool // refused once, over UDP: sent again from another port
	graced      bool // the deadline was put off once, because Run had been starved
	ids         ids  // empty while not active: then nothing is an answer
	target      *Target
	asks        []chan outcome
	started     time.Time
	deadline    time.Time
	resendAt    time.Time // zero: do not send again
	hintAt      time.Time // zero: do not call Hesitates
	gap         time.Duration
	sends       int       // packets or messages that left
	sentAt      time.Time // when the first of them left; over TCP the last
	provisional Answer    // a 1xx answer; Code 0: none came
	err         error     // of this host's own socket, since the last packet that left
}

type outcome struct {
	answer Answer
	err    error
}

// appendMessage appends the OPTIONS message, with local as the sender's address.
func (f *flight) appendMessage(b []byte, local netip.AddrPort) []byte {
	return appendOptions(b, f.ids, f.target.Transport, local, f.target.Address, f.target.UserAgent)
}

// ProbeError says why a probe got no answer.
type ProbeError struct {
	Target  Target
	Outcome Outcome // Unanswered or PortRefused
	Sends   int     // packets that left; over TCP messages
	Err     error   // error of this host's own socket or of the connection; nil: no answer came
}

func (e *ProbeError) Error() string {
	t := e.Target
	what := "OPTIONS " + string(appendURI(nil, t.Transport, t.Address)) + ": "
	switch {
	case e.Outcome == PortRefused:
		return what + "connection refused (nothing listens on that " + t.Transport.listens() + " port)"
	case e.Err != nil:
		return what + e.Err.Error()
	case t.Transport == UDP:
		return what + fmt.Sprintf("no answer within %v (asked %s; a firewall, or the server hangs)", t.Timeout, times(e.Sends))
	case e.Sends == 0:
		return what + fmt.Sprintf("no connection within %v (a firewall, or the server hangs)", t.Timeout)
	}
	return what + fmt.Sprintf("no answer within %v (connected, but the server hangs)", t.Timeout)
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

func (e *ProbeError) Unwrap() error {
	switch {
	case e.Outcome == PortRefused:
		return syscall.ECONNREFUSED
	case e.Err != nil:
		return e.Err
	}
	return context.DeadlineExceeded
}

// step does whatever is due now.
func (p *Prober) step(now time.Time) {
	if p.hurry.Swap(false) {
		p.urgent = true
	}
	f := &p.flight
	if f.active && !now.Before(f.deadline) {
		p.timeout(now)
	}
	if f.active && !f.hintAt.IsZero() && !now.Before(f.hintAt) {
		f.hintAt, p.lastHint = time.Time{}, now
		p.opts.Hesitates(f.started)
	}
	waiting := p.waiting()
	push := waiting && !f.pushed
	mayHurry := !now.Before(p.lastUrge.Add(urgentGap))
	switch {
	case !f.active && (waiting || p.urgent && mayHurry || !now.Before(p.nextAt)):
		p.start(now)
	case f.active && (p.urgent || push) && mayHurry:
		f.again = f.again || p.urgent
		f.asked = f.asked || p.urgent
		f.pushed = f.pushed || waiting
		p.urgent, p.lastUrge = false, now
		p.send(now, true)
	case f.active && !f.resendAt.IsZero() && !now.Before(f.resendAt):
		f.resendAt = f.resendAt.Add(f.stretch())
		p.send(now, false)
	}
}

// stretch doubles the gap and returns it: the time to the packet after the next.
func (f *flight) stretch() time.Duration {
	f.gap = min(2*f.gap, timer2)
	return f.gap
}

// due returns when step has something to do next.
func (p *Prober) due() time.Time {
	f := &p.flight
	at := p.nextAt
	if f.active {
		at = f.deadline
		if !f.resendAt.IsZero() && f.resendAt.Before(at) {
			at = f.resendAt
		}
		if !f.hintAt.IsZero() && f.hintAt.Before(at) {
			at = f.hintAt
		}
	}
	push := f.active && !f.pushed && p.waiting()
	if soon := p.lastUrge.Add(urgentGap); (p.urgent || push) && soon.Before(at) {
		at = soon
	}
	return at
}

func (p *Prober) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asks) > 0
}

func (p *Prober) start(now time.Time) {
	wait := p.target.Timeout
	if p.judge.suspects() {
		// During a suspicion, start one probe per interval. So Fall probes end after
		// fall*interval + timeout at the latest, not after fall timeouts. Each probe
		// still has its whole timeout to be answered, see earlier.
		wait = min(wait, p.target.Interval)
	}
	gap := min(timer1, wait/2)
	p.flight = flight{
		active: true, asked: p.urgent, ids: newIDs(p.opts.Rand), target: &p.target,
		started: now, deadline: now.Add(wait), resendAt: now.Add(gap), gap: gap,
	}
	if p.opts.Hesitates != nil && p.judge.verdict == Up && p.judge.bad == 0 && now.Sub(p.lastHint) >= hintGap {
		p.flight.hintAt = now.Add(min(gap, time.Duration(p.target.Fall-1)*p.target.Interval+hintSlack))
	}
	anew := p.urgent || p.judge.suspects() && p.judge.bad == 1
	if p.urgent {
		p.urgent, p.lastUrge = false, now
	}
	p.mu.Lock()
	p.flight.asks, p.asks = p.asks, nil
	p.mu.Unlock()
	p.send(now, anew || len(p.flight.asks) > 0)
}

// timeout ends the flight, unless its answer has already arrived.
func (p *Prober) timeout(now time.Time) {
	for i := 0; p.flight.active && i < drainMost; i++ {
		a, ok := p.link.waiting()
		if !ok {
			break
		}
		p.received(a)
	}
	f := &p.flight
	late := now.Sub(f.deadline)
	switch {
	case !f.active:
	case f.provisional.Code != 0: // the server lives, and the probe asks for no more
		p.end(f.provisional, p.outcomeOf(f.provisional), nil, now)
	case p.target.Transport != UDP && late > lateness && !f.graced:
		// The connection's reader was starved along with Run. Give it as much time as
		// both have lost.
		f.graced = true
		f.deadline = now.Add(min(late, p.target.Timeout))
	default:
		p.end(Answer{}, Unanswered, f.err, now)
	}
}

// received handles one message, or the link's error.
func (p *Prober) received(a arrival) {
	now := p.opts.Now()
	switch {
	case a.ready && p.flight.active:
		p.send(now, false)
	case a.ready:
	case a.err == nil:
		p.message(a.message, now)
	case a.closed:
		p.ended(a, now)
	case errors.Is(a.err, syscall.ECONNREFUSED) && p.flight.active:
		p.refused(now)
	case errors.Is(a.err, syscall.ECONNREFUSED):
		p.urgent = true // refusal of a packet of the last probe, which was answered: the server died since
	default:
		p.fail(a.err, now)
	}
}

// refused handles a refused port. Over UDP anyone may have forged the refusal, from
// anywhere: the kernel checks only the addresses and ports of the packet quoted in it. So
// it takes two refusals in a row, from two different local ports. An attacker who does
// not see the probes would have to guess both ports within one round trip. If the port is
// already known to refuse, one refusal is enough, because hosts send few of them to one
// address: six at once, then one a second (Linux, icmp_ratelimit).
func (p *Prober) refused(now time.Time) {
	f := &p.flight
	known := p.judge.verdict == Refused && p.judge.kind == PortRefused
	if f.refused || known || !p.link.renew() {
		p.end(Answer{}, PortRefused, nil, now)
		return
	}
	f.refused = true
	p.send(now, false)
}

// ended handles the end of a connection. The end is no verdict, because servers close
// idle connections. The new connection that is opened at once shows whether the server
// lives.
func (p *Prober) ended(a arrival, now time.Time) {
	f := &p.flight
	if errors.Is(a.err, errFraming) {
		p.count(func(s *Stats) { s.Malformed++ })
	}
	switch {
	case f.active && !f.redialled: // a new connection too: a dying server may close its listener last
		f.redialled = true
		p.send(now, true)
	case f.active:
		f.err = endOf(a.err)
	case !now.Before(p.lastEnd.Add(endGap)):
		p.lastEnd = now
		p.urgent = true
	}
}

func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the server closed the connection without an answer")
	}
	return plain(err)
}

func (p *Prober) message(b []byte, now time.Time) {
	f := &p.flight
	a, err := matchAnswer(p.parser, b, f.ids)
	sentAt := f.sentAt
	if errors.Is(err, errLate) && f.active && len(f.asks) == 0 {
		a, sentAt, err = p.earlierAnswer(b, now)
	}
	if err != nil {
		p.count(func(s *Stats) {
			if errors.Is(err, errLate) {
				s.Late++
			} else {
				s.Malformed++
			}
		})
		return
	}
	a.RTT = now.Sub(sentAt)
	a.Connect, a.Certificate = p.link.connected()
	a.Listed = slices.Contains(p.target.UnhealthyCodes, a.Code) && (p.opts.Pardon == nil || !p.opts.Pardon())
	if a.Code < 200 { // provisional: the final answer may still have a listed code
		f.provisional, f.resendAt, f.hintAt = a, time.Time{}, time.Time{}
		return
	}
	p.end(a, p.outcomeOf(a), nil, now)
}

// remember keeps an unanswered probe while its answer may still come in time.
func (p *Prober) remember(f flight, o Outcome) {
	if o != Unanswered {
		p.earlier = p.earlier[:0]
		return
	}
	p.earlier = slices.DeleteFunc(p.earlier, func(e flight) bool { return !f.deadline.Before(e.started.Add(p.target.Timeout)) })
	if f.deadline.Before(f.started.Add(p.target.Timeout)) {
		f.asks = nil
		p.earlier = append(p.earlier, f)
	}
}

// earlierAnswer matches b against earlier probes whose Timeout has not passed yet.
func (p *Prober) earlierAnswer(b []byte, now time.Time) (Answer, time.Time, error) {
	for _, e := range p.earlier {
		if now.Before(e.started.Add(p.target.Timeout)) {
			if a, err := matchAnswer(p.parser, b, e.ids); err == nil {
				return a, e.sentAt, nil
			}
		}
	}
	return Answer{}, time.Time{}, errLate
}

func (p *Prober) outcomeOf(a Answer) Outcome {
	if a.Listed {
		return Listed
	}
	return Answered
}

// end closes the flight, judges its outcome, and tells everyone who waits for it.
func (p *Prober) end(a Answer, o Outcome, err error, now time.Time) {
	f := p.flight
	p.flight = flight{}
	p.link.settle(o == Answered || o == Listed, now)
	p.remember(f, o)
	previous, misses := p.judge.verdict, p.judge.bad
	changed := p.judge.note(o)
	since := p.restsOn(f, o)
	p.mu.Lock()
	p.stats.note(a, o, now)
	p.report.Verdict, p.report.Misses, p.report.Err = p.judge.verdict, p.judge.bad, nil
	if a.Code != 0 {
		p.report.Answer = a
		p.rtts.add(a.RTT)
	}
	p.mu.Unlock()

	p.nextAt = p.regular(f.started)
	if o == Unanswered {
		p.urgent = p.urgent || f.again
		if p.judge.verdict != Silent { // during a suspicion the next probe does not wait for the interval
			p.nextAt = now
		}
	}
	if o == Unanswered || o == PortRefused {
		err = &ProbeError{Target: p.target, Outcome: o, Sends: f.sends, Err: err}
		p.mu.Lock()
		p.report.Err = err
		p.mu.Unlock()
	}
	for _, ask := range f.asks {
		ask <- outcome{a, err}
	}
	asked := f.asked || len(f.asks) > 0
	suspicion := misses == 0 != (p.judge.bad == 0)
	if changed || asked || suspicion || p.opts.Every {
		p.opts.Deliver(Result{
			Answer: a, Target: p.target, Verdict: p.judge.verdict, Previous: previous, Changed: changed,
			Outcome: o, Asked: asked, Misses: p.judge.bad, Err: err, Started: f.started, At: now, Since: since,
		})
	}
}

// restsOn returns when the first of the probes began that the verdict now rests on.
// Silence rests on the last Fall failed probes. Fewer of them, after a good answer that
// did not end the silence, only confirm it and leave since as it is.
func (p *Prober) restsOn(f flight, o Outcome) time.Time {
	if o == Answered {
		p.missed = p.missed[:0]
		return f.started
	}
	p.missed = append(p.missed, f.started)
	if most := p.target.Fall; len(p.missed) > most {
		p.missed = slices.Delete(p.missed, 0, len(p.missed)-most)
	}
	switch {
	case o == PortRefused, !p.judge.down():
		p.since = f.started
	case len(p.missed) == p.target.Fall:
		p.since = p.missed[0]
	}
	return p.since
}

// regular returns when the next regular probe is due, after one that began at started.
func (p *Prober) regular(started time.Time) time.Time {
	interval := p.target.Interval
	if p.opts.Grid == nil {
		return started.Add(interval)
	}
	grid := p.opts.Grid()
	if grid.IsZero() || started.Before(grid) {
		return started.Add(interval)
	}
	past := started.Sub(grid) % interval
	return started.Add(interval - past)
}

func (s *Stats) note(a Answer, o Outcome, now time.Time) {
	switch o {
	case Unanswered:
		s.Timeouts++
		return
	case PortRefused:
		s.Refused++
		return
	case Answered:
		s.LastAnswer = now
	}
	s.Answered++
	s.LastRTT = a.RTT
}

func (p *Prober) count(f func(*Stats)) {
	p.mu.Lock()
	f(&p.stats)
	p.mu.Unlock()
}

// send sends the flight's message. If it cannot be sent, the probe stays unanswered.
func (p *Prober) send(now time.Time, anew bool) {
	f := &p.flight
	sent, err := p.link.send(f, now, anew)
	switch {
	case err == nil && sent:
		if f.sends == 0 || p.target.Transport != UDP {
			f.sentAt = now
		}
		f.sends++
		f.err = nil
		p.count(func(s *Stats) { s.Sent++ })
	case err == nil: // not connected yet
	case errors.Is(err, syscall.ECONNREFUSED):
		p.refused(now)
	default:
		p.count(func(s *Stats) { s.SendErrors++; s.LastErr = err })
		f.err = plain(err)
	}
}

// fail handles an error of this host's own socket, or of a connection attempt that
// failed.
func (p *Prober) fail(err error, now time.Time) {
	p.link.fail(err, now)
	p.flight.err = err
	p.count(func(s *Stats) { s.LastErr = err })
}
