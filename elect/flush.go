package elect

import (
	"slices"
	"time"
)

// flushing is an operator's flush on its way through the cluster. Every node runs its
// flush actions once, however often it is asked.
type flushing struct {
	id      uint64 // of the command
	asks    uint64 // ID of its requests
	sent    Instant
	by      Instant
	reports []NodeReport // by peer
	open    int          // how many nodes have not reported yet
}

const (
	reportPart = 56      // results in one packet; so many fit even at their longest
	maxReports = 1 << 15 // results of one node; a file has room for fewer actions
)

// parts are the packets that carry a node's results.
func parts(id uint64, results []ActionResult) (all []Report) {
	results = results[:min(len(results), maxReports)]
	for first := 0; first == 0 || first < len(results); first += reportPart {
		all = append(all, Report{ID: id, First: uint64(first), Total: uint64(len(results)), Results: results[first:min(first+reportPart, len(results))]})
	}
	return all
}

// fits reports whether r can be a part of the same results as the parts before it; total
// is nil where none came before.
func (r Report) fits(total []ActionResult) bool {
	within := r.First == 0 || r.First < r.Total
	return within && r.Total <= maxReports && (total == nil || uint64(len(total)) == r.Total) && r.First%reportPart == 0 &&
		r.First+uint64(len(r.Results)) == min(r.First+reportPart, r.Total)
}

func (m *Machine) commandFlush(c Command) {
	f := &flushing{id: c.ID, asks: m.rng.Uint64() | 1, by: m.now.Add(m.cfg.FlushTimeout + commandTimeout)}
	for _, p := range m.peers {
		r := NodeReport{Node: p.Name}
		if p.alive {
			f.open++
		} else {
			r.Failed = "not heard"
		}
		f.reports = append(f.reports, r)
	}
	m.flushes = append(m.flushes, f)
	m.eff.Flush = append(m.eff.Flush, FlushDue{ID: f.asks, From: m.self.Name})
}

// onFlushed hands the results of this node's own actions to the node that asked.
func (m *Machine) onFlushed(e Flushed) {
	if e.From == m.self.Name {
		for _, r := range parts(e.ID, e.Results) {
			m.reported(m.self, r)
		}
		return
	}
	for _, r := range m.requests {
		if r.flush && r.id == e.ID && r.from.Name == e.From {
			r.report = parts(e.ID, e.Results)
			m.sendReport(r)
		}
	}
}

// requestedFlush runs the actions at the first request, and sends the results again at
// every repetition.
func (m *Machine) requestedFlush(r *request) {
	switch {
	case !r.flush:
		r.flush = true
		m.eff.Flush = append(m.eff.Flush, FlushDue{ID: r.id, From: r.from.Name})
	default:
		m.sendReport(r)
	}
}

func (m *Machine) sendReport(r *request) {
	for _, part := range r.report {
		m.send(r.from, part)
	}
}

// reported takes one part of a node's report. The node is asked again until all parts
// have come.
func (m *Machine) reported(p *peer, part Report) {
	for _, f := range m.flushes {
		r := &f.reports[p.index]
		if f.asks != part.ID || r.done || r.Failed != "" || !part.fits(r.Results) {
			continue
		}
		if r.Results == nil {
			r.Results = make([]ActionResult, part.Total)
			r.missing = len(parts(0, r.Results))
			r.came = make([]bool, r.missing)
		}
		if n := part.First / reportPart; !r.came[n] {
			copy(r.Results[part.First:], part.Results)
			r.came[n] = true
			r.missing--
		}
		if r.missing == 0 {
			r.done = true
			f.open--
		}
	}
}

// runFlushes answers the flushes that are complete or late, and repeats the requests of
// the rest.
func (m *Machine) runFlushes() {
	m.flushes = slices.DeleteFunc(m.flushes, func(f *flushing) bool {
		if f.open > 0 && m.now < f.by {
			m.askFlush(f)
			return false
		}
		m.answerFlush(f, "no answer in time")
		return true
	})
}

// endFlushes answers every flush with what has been reported: the nodes have other
// indices now.
func (m *Machine) endFlushes() {
	for _, f := range m.flushes {
		m.answerFlush(f, "the configuration changed")
	}
	m.flushes = nil
}

// answerFlush answers a flush. For each node that has not reported it tells why.
func (m *Machine) answerFlush(f *flushing, why string) {
	for i := range f.reports {
		if r := &f.reports[i]; !r.done && r.Failed == "" {
			r.Failed, r.Results = why, nil // a part of them would be taken for all
		}
	}
	m.eff.Answers = append(m.eff.Answers, CommandAnswer{ID: f.id, Reports: f.reports})
}

func (m *Machine) askFlush(f *flushing) {
	m.due(f.by)
	if next := f.sent.Add(min(m.cfg.Heartbeat, 100*time.Millisecond)); f.sent != 0 && m.now < next {
		m.due(next)
		return
	}
	f.sent = m.now
	for i, p := range m.peers {
		if r := f.reports[i]; p != m.self && !r.done && r.Failed == "" {
			m.send(p, Request{ID: f.asks, Kind: CommandFlush})
		}
	}
}
