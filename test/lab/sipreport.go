package lab

import (
	"fmt"
	"math"
	"sort"
	"time"
)

// SIPReport sums up what a SIPObserver saw between two instants. Unless a field says
// otherwise, an instant is the time when a question was sent.
type SIPReport struct {
	Sent, Answered, Lost int
	By                   map[string]int // answers by Server header
	Status               map[int]int    // answers by status code

	// Silence is the longest outage. For every run of consecutive lost questions, it is
	// the time from the last answered question before the run to the first answered
	// question after it. It is 0 if no question was lost. One single lost question at 1
	// ms makes 2 ms. A run at an edge of the period counts from the first or to the last
	// question of the period. Silence is an upper bound: the true outage is up to two
	// intervals shorter.
	Silence         time.Duration
	SilenceFrom     time.Duration // when the last answered question before it was sent
	SilenceTo       time.Duration // when the first answered question after it was sent
	SilenceAnswered string        // the server that answered the question of SilenceTo

	// Gap is the longest time between two consecutive answers' arrivals: what a listener
	// on the line hears. It includes the observer's own stalls.
	Gap            time.Duration
	GapFrom, GapTo time.Duration // when these two answers arrived
	// Stall is the longest time between two consecutive questions. Far above the
	// interval, it means that this machine was too busy to observe, and Silence is only
	// as exact as that.
	Stall time.Duration
	// Worst is the longest time from a question to its answer.
	Worst time.Duration
}

func (r SIPReport) String() string {
	return fmt.Sprintf("%d asked, %d lost, silence %v, gap %v, answers by %v (observer's own stall %v)",
		r.Sent, r.Lost, r.Silence.Round(10*time.Microsecond), r.Gap.Round(10*time.Microsecond), r.By, r.Stall.Round(10*time.Microsecond))
}

// Report sums up the questions sent in [from, to); a zero to means until now. A question
// without an answer counts as lost even if its answer is still on its way. So let some
// milliseconds pass, or call Stop, before you ask for the very end.
func (o *SIPObserver) Report(from, to time.Duration) SIPReport {
	r := SIPReport{By: map[string]int{}, Status: map[int]int{}}
	var s silence
	var lastSent, lastHeard time.Duration
	o.each(from, to, func(p Ping) {
		if r.Sent > 0 {
			r.Stall = max(r.Stall, p.Sent-lastSent)
		}
		r.Sent++
		lastSent = p.Sent
		if p.RTT == 0 {
			r.Lost++
			s.lost(p)
			return
		}
		if gap := p.Sent + p.RTT - lastHeard; r.Answered > 0 && gap > r.Gap {
			r.Gap, r.GapFrom, r.GapTo = gap, lastHeard, p.Sent+p.RTT
		}
		r.Answered++
		lastHeard = max(lastHeard, p.Sent+p.RTT)
		r.By[p.Server]++
		r.Status[p.Status]++
		r.Worst = max(r.Worst, p.RTT)
		s.answered(p)
	})
	s.answered(Ping{Sent: lastSent}) // closes a run still open, at the last question
	r.Silence, r.SilenceFrom, r.SilenceTo, r.SilenceAnswered = s.to-s.from, s.from, s.to, s.by
	return r
}

// silence finds the longest run of lost questions.
type silence struct {
	from, to time.Duration // the longest so far
	by       string

	begin time.Duration // the last answered question, or the first question of all
	known bool          // whether begin is set
	open  bool          // whether questions were lost since begin
}

func (s *silence) lost(p Ping) {
	if !s.known {
		s.begin, s.known = p.Sent, true
	}
	s.open = true
}

func (s *silence) answered(p Ping) {
	if s.open && p.Sent-s.begin > s.to-s.from {
		s.from, s.to, s.by = s.begin, p.Sent, p.Server
	}
	s.begin, s.known, s.open = p.Sent, true, false
}

// Pings returns the questions sent in [from, to); a zero to means until now.
func (o *SIPObserver) Pings(from, to time.Duration) []Ping {
	var pings []Ping
	o.each(from, to, func(p Ping) { pings = append(pings, p) })
	return pings
}

// Last returns the newest question that was answered; ok is false if none was.
func (o *SIPObserver) Last() (p Ping, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n := o.count - 1; n >= 0; n-- {
		if p := o.at(n); p.RTT != 0 {
			return p, true
		}
	}
	return Ping{}, false
}

// Duplicates returns how many more answers came to questions already answered: two
// servers at one address.
func (o *SIPObserver) Duplicates() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.duplicates
}

// Foreign returns how many datagrams came that answer no question of ours.
func (o *SIPObserver) Foreign() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.foreign
}

func (o *SIPObserver) each(from, to time.Duration, visit func(Ping)) {
	if to == 0 {
		to = math.MaxInt64
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	first := sort.Search(o.count, func(n int) bool { return o.at(n).Sent >= from })
	for n := first; n < o.count; n++ {
		p := o.at(n)
		if p.Sent >= to {
			return
		}
		visit(p)
	}
}

// at returns a question by its number. The lock is held.
func (o *SIPObserver) at(n int) Ping {
	p := o.chunks[n/pingChunk][n%pingChunk]
	return Ping{time.Duration(p.sent), time.Duration(p.rtt), o.servers[p.server], int(p.status)}
}
