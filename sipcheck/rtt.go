package sipcheck

import (
	"slices"
	"time"
)

// rttWindow is how many of the last answers the quantiles cover: half a minute for a
// node's own PBX at the default rate, two minutes for a peer's.
const rttWindow = 128

// rtts remembers how long the last answers took.
type rtts struct {
	count uint64
	sum   time.Duration
	last  [rttWindow]time.Duration // a ring
}

func (r *rtts) add(d time.Duration) {
	r.last[r.count%rttWindow] = d
	r.count++
	r.sum += d
}

// RTT is how long answers take. Count and Sum cover all since the start, the quantiles
// the last rttWindow (a Prometheus summary has the same parts). It is zero if there are
// none.
type RTT struct {
	Count                 uint64
	Sum                   time.Duration
	Median, P90, P99, Max time.Duration
}

func (r *rtts) summary() RTT {
	n := int(min(r.count, rttWindow))
	if n == 0 {
		return RTT{}
	}
	sorted := r.last
	s := sorted[:n]
	slices.Sort(s)
	// The nearest rank: the smallest value such that at least percent % of all values are
	// no larger.
	rank := func(percent int) time.Duration { return s[max((n*percent+99)/100, 1)-1] }
	return RTT{Count: r.count, Sum: r.sum, Median: rank(50), P90: rank(90), P99: rank(99), Max: s[n-1]}
}

// Report is what a prober currently knows about its target.
type Report struct {
	Target  Target
	Verdict Verdict
	Misses  int    // probes in a row without a good answer
	Answer  Answer // the last one, listed codes included; Code 0: none yet
	Err     error  // why the last probe brought no answer; nil when it did
	RTT     RTT
}

// Report returns a copy of the current report.
func (p *Prober) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.report
	r.Target, r.RTT = p.target, p.rtts.summary()
	return r
}
