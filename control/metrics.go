package control

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metric is one metric that is read from a status. docs/metrics.md lists them.
type metric struct {
	name, help string
	labels     []string
	counter    bool
	read       func(st Status, tell func(value float64, labels ...string))
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m Millis) seconds() float64 { return time.Duration(m).Seconds() }

// one makes a metric without labels.
func one(name, help string, value func(Status) float64) metric {
	return metric{name: name, help: help, read: func(st Status, tell func(float64, ...string)) { tell(value(st)) }}
}

// perNode makes a metric with a value for every node.
func perNode(name, help string, value func(NodeStatus) float64) metric {
	return metric{name: name, help: help, labels: []string{"node"}, read: func(st Status, tell func(float64, ...string)) {
		for _, n := range st.Nodes {
			tell(value(n), n.Name)
		}
	}}
}

// perVIP makes a metric with a value for every VIP for which value knows one.
func perVIP(name, help string, value func(st Status, v VIPStatus) (float64, bool)) metric {
	return metric{name: name, help: help, labels: []string{"vip"}, read: func(st Status, tell func(float64, ...string)) {
		for _, v := range st.VIPs {
			if x, known := value(st, v); known {
				tell(x, v.Name)
			}
		}
	}}
}

// perRole makes a metric with a value for every role.
func perRole(name, help string, value func(st Status, r RoleStatus) float64) metric {
	return metric{name: name, help: help, labels: []string{"role"}, read: func(st Status, tell func(float64, ...string)) {
		for _, r := range st.Roles {
			tell(value(st, r), r.Name)
		}
	}}
}

// perTarget makes a metric with values for every SIP listener that this node probes. The
// label on names the node or VIP of the listener.
func perTarget(name, help string, labels []string, read func(t TargetStatus, tell func(float64, ...string))) metric {
	return metric{name: name, help: help, labels: append([]string{"on", "target"}, labels...), read: func(st Status, tell func(float64, ...string)) {
		each := func(on string, targets []TargetStatus) {
			for _, t := range targets {
				read(t, func(x float64, more ...string) { tell(x, append([]string{on, t.Name}, more...)...) })
			}
		}
		for _, n := range st.Nodes {
			each(n.Name, n.Targets)
		}
		for _, v := range st.VIPs {
			each(v.Name, v.Targets)
		}
	}}
}

// counter makes a metric of one of the status's counters.
func counter(key, name, help string) metric {
	return metric{name: name, help: help, counter: true, read: func(st Status, tell func(float64, ...string)) {
		if n, known := st.Counters[key]; known {
			tell(float64(n))
		}
	}}
}

// worst makes a metric of one of the status's counters that is a time in microseconds.
func worst(key, name, help string) metric {
	return metric{name: name, help: help, read: func(st Status, tell func(float64, ...string)) {
		if us, known := st.Counters[key]; known {
			tell(float64(us) / 1e6)
		}
	}}
}

// collector reads every metric from one status per scrape.
type collector struct {
	status func() (Status, error)
	descs  []*prometheus.Desc // of metrics, in the same order
}

func newCollector(status func() (Status, error)) *collector {
	c := &collector{status: status}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	return c
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect makes the scrape fail if the agent does not answer. A target that is down says
// more than old figures.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	st, err := c.status()
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[0], err)
		return
	}
	for i, m := range metrics {
		kind := prometheus.GaugeValue
		if m.counter {
			kind = prometheus.CounterValue
		}
		m.read(st, func(value float64, labels ...string) {
			for l := range labels {
				labels[l] = strings.ToValidUTF8(labels[l], "?")
			}
			out <- prometheus.MustNewConstMetric(c.descs[i], kind, value, labels...)
		})
	}
}

// tally counts the journal's events from the agent's start on.
type tally struct {
	events    *prometheus.CounterVec
	takeovers *prometheus.CounterVec
	failed    *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	proof     prometheus.Histogram
}

func newTally() *tally {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &tally{
		events:    vec("sipalive_events_total", "Events of this node, by kind.", "kind"),
		takeovers: vec("sipalive_takeovers_total", "Takeovers by this node, by why.", "vip", "reason"),
		failed:    vec("sipalive_takeovers_failed_total", "Takeovers by this node that ended otherwise than well.", "vip", "reason"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sipalive_takeover_seconds",
			Help:    "From the need that was noticed to the VIP's SIP answer, or, unverified, its announcement; by this node.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}}, []string{"reason"}),
		proof: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sipalive_bind_to_proof_seconds",
			Help:    "From the VIP bound by a takeover of this node's to the router's first answer there.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}}),
	}
}

func (t *tally) collectors() []prometheus.Collector {
	return []prometheus.Collector{t.events, t.takeovers, t.failed, t.seconds, t.proof}
}

// see counts an event. before is its previous version, nil for a new event.
func (t *tally) see(before, e *Event) {
	if e.Told {
		return // the node that reported it counts it
	}
	if before == nil {
		t.events.WithLabelValues(e.Kind).Inc()
		if e.Kind == Takeover {
			t.takeovers.WithLabelValues(e.VIP, e.Reason).Inc()
		}
	}
	if took, known := e.Proof(); known {
		if _, seen := before.Proof(); !seen {
			t.proof.Observe(took.seconds())
		}
	}
	if e.Kind != Takeover || !e.complete() || before != nil && before.complete() {
		return
	}
	if e.Outcome != done {
		t.failed.WithLabelValues(e.VIP, e.Reason).Inc()
		return
	}
	if at, known := e.served(); known {
		t.seconds.WithLabelValues(e.Reason).Observe(at.seconds())
	}
}

// done is the outcome of a takeover that succeeded.
const done = "done"

// newRegistry returns a registry with all metrics of the agent and of its process.
func newRegistry(status func() (Status, error), journal *Journal) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(status), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(journal.tally.collectors()...)
	return r
}
