package sipcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	// urgentGap bounds what ProbeNow can send: 100 packets a second, however
	// often the kernel says that sockets die.
	urgentGap = 10 * time.Millisecond
	// A socket that fails is opened again after 10 ms, then twice that, ...
	firstBackoff = 10 * time.Millisecond
	lastBackoff  = time.Second
	// drainMost bounds the reading of what had arrived before a timeout: a flood
	// must not keep a dead server alive.
	drainMost = 4096
)

// flight is the probe under way: one at a time, so that outcomes come in order
// and Fall probes mean Fall timeouts.
type flight struct {
	active      bool
	asked       bool // deliver its result
	again       bool // urged while under way: one more if it stays unanswered
	pushed      bool // sent again because a Probe waits for its end
	ids         ids  // none while not active: nothing is an answer then
	asks        []chan outcome
	started     time.Time
	deadline    time.Time
	resendAt    time.Time // zero: sent again already
	sends       int       // packets that left
	provisional Answer    // Code 0: none came
	err         error     // of our own socket, since the last packet that left
}

type outcome struct {
	answer Answer
	err    error
}

// ProbeError says why a probe got no answer.
type ProbeError struct {
	Target  Target
	Outcome Outcome // Unanswered or PortRefused
	Err     error   // of this host's own socket; nil: sent, and no answer came
}

func (e *ProbeError) Error() string {
	what := "OPTIONS " + string(appendHostPort([]byte("sip:"), e.Target.Address)) + ": "
	switch {
	case e.Outcome == PortRefused:
		return what + "connection refused (nothing listens on that UDP port)"
	case e.Err != nil:
		return what + e.Err.Error()
	}
	return what + fmt.Sprintf("no answer within %v (asked twice; a firewall, or the server hangs)", e.Target.Timeout)
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
		p.send(now)
	case f.active && !f.resendAt.IsZero() && !now.Before(f.resendAt):
		f.resendAt = time.Time{}
		p.send(now)
	}
}

// due is when step has something to do next.
func (p *Prober) due() time.Time {
	f := &p.flight
	at := p.nextAt
	if f.active {
		at = f.deadline
		if !f.resendAt.IsZero() && f.resendAt.Before(at) {
			at = f.resendAt
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
	p.flight = flight{
		active: true, asked: p.urgent, ids: newIDs(p.opts.Rand),
		started: now, deadline: now.Add(p.target.Timeout), resendAt: now.Add(p.target.Timeout / 2),
	}
	if p.urgent {
		p.urgent, p.lastUrge = false, now
	}
	p.mu.Lock()
	p.flight.asks, p.asks = p.asks, nil
	p.mu.Unlock()
	p.send(now)
}

// timeout ends the flight, unless its answer lies in the socket already.
func (p *Prober) timeout(now time.Time) {
	s := p.sock.Load()
	for i := 0; s != nil && p.flight.active && i < drainMost; i++ {
		n, err := s.readWaiting(p.in)
		if errors.Is(err, errNothing) {
			break
		}
		p.received(n, err)
		s = p.sock.Load()
	}
	f := &p.flight
	switch {
	case !f.active:
	case f.provisional.Code != 0: // it lives, and that is all that was asked
		p.end(f.provisional, p.outcomeOf(f.provisional), nil, now)
	default:
		p.end(Answer{}, Unanswered, f.err, now)
	}
}

// wait sleeps until something arrives, the time has come, or wake is called.
func (p *Prober) wait(until time.Time) {
	s := p.sock.Load()
	if s == nil {
		p.waitWithoutSocket(until)
		return
	}
	if !until.Equal(p.armed) {
		p.armed = until
		s.SetReadDeadline(until)
	}
	if p.woken.Swap(false) {
		p.armed = time.Time{}
		return
	}
	n, err := s.Read(p.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.armed = time.Time{}
		return
	}
	p.received(n, err)
}

func (p *Prober) waitWithoutSocket(until time.Time) {
	t := time.NewTimer(until.Sub(p.opts.Now()))
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.wakeup:
		p.woken.Store(false)
	}
}

// received takes one datagram, or the socket's error.
func (p *Prober) received(n int, err error) {
	now := p.opts.Now()
	switch {
	case err == nil:
		p.datagram(p.in[:n], now)
	case errors.Is(err, syscall.ECONNREFUSED) && p.flight.active:
		p.end(Answer{}, PortRefused, nil, now)
	case errors.Is(err, syscall.ECONNREFUSED):
		p.urgent = true // to a packet of the last probe: answered, and dead since
	default:
		p.fail(err, now)
	}
}

func (p *Prober) datagram(b []byte, now time.Time) {
	f := &p.flight
	a, err := matchAnswer(p.parser, b, f.ids)
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
	a.RTT = now.Sub(f.started)
	a.Listed = slices.Contains(p.target.UnhealthyCodes, a.Code)
	if a.Code < 200 { // the final answer may yet be a listed one
		f.provisional, f.resendAt = a, time.Time{}
		return
	}
	p.end(a, p.outcomeOf(a), nil, now)
}

func (p *Prober) outcomeOf(a Answer) Outcome {
	if a.Listed {
		return Listed
	}
	return Answered
}

// end closes the flight, judges, and tells whoever wants to know.
func (p *Prober) end(a Answer, o Outcome, err error, now time.Time) {
	f := p.flight
	p.flight = flight{}
	previous, misses := p.judge.verdict, p.judge.bad
	changed := p.judge.note(o)
	p.count(func(s *Stats) { s.note(a, o, now) })

	p.nextAt = f.started.Add(p.target.Interval)
	if o == Unanswered {
		p.urgent = p.urgent || f.again
		if p.judge.verdict != Silent { // a suspicion does not wait for the interval
			p.nextAt = now
		}
	}
	if o == Unanswered || o == PortRefused {
		err = &ProbeError{Target: p.target, Outcome: o, Err: err}
	}
	for _, ask := range f.asks {
		ask <- outcome{a, err}
	}
	asked := f.asked || len(f.asks) > 0
	suspicion := misses == 0 != (p.judge.bad == 0)
	if changed || asked || suspicion || p.opts.Every {
		p.opts.Deliver(Result{
			Answer: a, Target: p.target, Verdict: p.judge.verdict, Previous: previous, Changed: changed,
			Outcome: o, Asked: asked, Misses: p.judge.bad, Err: err, Started: f.started, At: now,
		})
	}
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

// send sends the flight's message, the same each time but for the sent-by when
// the socket had to be opened anew. What cannot be sent stays unanswered.
func (p *Prober) send(now time.Time) {
	s, err := p.socket(now)
	if err == nil {
		p.out = appendOptions(p.out[:0], p.flight.ids, s.local, p.target.Address, p.target.UserAgent)
		_, err = s.Write(p.out)
		if errors.Is(err, syscall.ECONNREFUSED) && p.flight.sends == 0 {
			// The kernel hands out an error of an earlier packet here, and has
			// not sent this one. This probe's own refusal comes by itself.
			_, err = s.Write(p.out)
		}
	}
	switch {
	case err == nil:
		p.flight.sends++
		p.flight.err = nil
		p.backoff = 0
		p.count(func(s *Stats) { s.Sent++ })
	case errors.Is(err, syscall.ECONNREFUSED):
		p.end(Answer{}, PortRefused, nil, now)
	default:
		p.count(func(s *Stats) { s.SendErrors++ })
		if s != nil {
			p.fail(err, now)
		}
		p.flight.err = err
	}
}

// socket returns the open one, or opens it if it is time to.
func (p *Prober) socket(now time.Time) (*socket, error) {
	if s := p.sock.Load(); s != nil {
		return s, nil
	}
	if now.Before(p.reopenAt) {
		return nil, p.Stats().LastErr
	}
	s, err := openSocket(p.opts.Local, p.target.Address)
	if err != nil {
		p.fail(err, now)
		return nil, err
	}
	p.armed = time.Time{}
	p.sock.Store(s)
	return s, nil
}

// fail closes a socket that is no use any more (its address is gone, a firewall
// forbids it) and says when to open the next.
func (p *Prober) fail(err error, now time.Time) {
	p.closeSocket()
	p.backoff = min(max(2*p.backoff, firstBackoff), lastBackoff)
	p.reopenAt = now.Add(p.backoff)
	p.flight.err = err
	p.count(func(s *Stats) { s.LastErr = err })
}

func (p *Prober) closeSocket() {
	if s := p.sock.Swap(nil); s != nil {
		s.Close()
	}
}
