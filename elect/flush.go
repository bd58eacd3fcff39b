package elect

import "time"

// flushing is an operator's flush on its way through the cluster: every node runs
// its flush actions once, however often it is asked.
type flushing struct {
	id      uint64 // of the command
	asks    uint64 // ID of its requests
	sent    Instant
	by      Instant
	reports []NodeReport // by peer
	open    int          // without an answer yet
}

// maxReports bounds what one node tells of its flush: it has to fit into a packet.
const maxReports = 56

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

// onFlushed takes the outcome of this node's own actions, to whoever asked.
func (m *Machine) onFlushed(e Flushed) {
	results := e.Results[:min(len(e.Results), maxReports)]
	if e.From == m.self.Name {
		m.reported(m.self, e.ID, results)
		return
	}
	for _, r := range m.requests {
		if r.flush && r.id == e.ID && r.from.Name == e.From {
			r.report = &Report{ID: e.ID, Results: results}
			m.send(r.from, *r.report)
		}
	}
}

// requestedFlush runs the actions once; asked again, it says again what came of it.
func (m *Machine) requestedFlush(r *request) {
	switch {
	case !r.flush:
		r.flush = true
		m.eff.Flush = append(m.eff.Flush, FlushDue{ID: r.id, From: r.from.Name})
	case r.report != nil:
		m.send(r.from, *r.report)
	}
}

func (m *Machine) reported(p *peer, id uint64, results []ActionResult) {
	for _, f := range m.flushes {
		if f.asks != id {
			continue
		}
		if r := &f.reports[p.index]; !r.done && r.Failed == "" {
			r.done, r.Results = true, results
			f.open--
		}
	}
}

// runFlushes answers those that are complete or late, and asks again.
func (m *Machine) runFlushes() {
	keep := m.flushes[:0]
	for _, f := range m.flushes {
		if f.open > 0 && m.now < f.by {
			m.askFlush(f)
			keep = append(keep, f)
			continue
		}
		m.answerFlush(f, "no answer in time")
	}
	clear(m.flushes[len(keep):])
	m.flushes = keep
}

// endFlushes answers with what has been reported: nodes have other places now.
func (m *Machine) endFlushes() {
	for _, f := range m.flushes {
		m.answerFlush(f, "the configuration changed")
	}
	m.flushes = nil
}

// answerFlush tells why of each node that has not reported.
func (m *Machine) answerFlush(f *flushing, why string) {
	for i := range f.reports {
		if r := &f.reports[i]; !r.done && r.Failed == "" {
			r.Failed = why
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
