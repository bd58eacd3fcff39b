package sipcheck

import (
	"slices"
	"time"
)

// rttWindow is how many of the last answers the quantiles are of: half a minute of
// a node's own PBX at the default rate, two minutes of a peer's.
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

// RTT is how long answers take: Count and Sum of all since the start, and quantiles
// of the last (a Prometheus summary has the same parts). Zero without any.
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
	// The nearest rank: the smallest of which at least that share is no larger.
	rank := func(percent int) time.Duration { return s[max((n*percent+99)/100, 1)-1] }
	return RTT{Count: r.count, Sum: r.sum, Median: rank(50), P90: rank(90), P99: rank(99), Max: s[n-1]}
}

// Report is what a prober thinks of its target now.
type Report struct {
	Target  Target
	Verdict Verdict
	Misses  int    // probes in a row without a good answer
	Answer  Answer // the last one, listed codes included; Code 0: none yet
	Err     error  // why the last probe brought no answer; nil when it did
	RTT     RTT
}

// Report is a copy of what is known.
func (p *Prober) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.report
	r.Target, r.RTT = p.target, p.rtts.summary()
	return r
}
