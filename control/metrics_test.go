package control

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// rich is a status with a value for every metric.
func rich() Status {
	st := troubled()
	up := TargetStatus{Name: "main", URI: "udp:5060", State: "up", Answers: 7, Median: Millis(time.Millisecond), P90: Millis(2 * time.Millisecond),
		P99: Millis(3 * time.Millisecond), Max: Millis(4 * time.Millisecond), CertificateEnds: &Since{at("03:04:05.000")}}
	st.Nodes[0].Targets, st.VIPs[0].Targets = []TargetStatus{up}, []TargetStatus{up}
	st.Nodes[0].Views = []View{{"pbx1", "refused"}, {"büro-3", "up"}, {"pbx2", "unknown"}}
	st.Nodes[0].Checks = []CheckStatus{{Name: "database", State: "unfit", Unfit: true}}
	st.Counters = map[string]uint64{}
	for key := range counterKeys() {
		st.Counters[key] = 3
	}
	return st
}

// counterKeys returns the keys of the counters in metrics_table.go.
func counterKeys() map[string]string {
	source, err := os.ReadFile("metrics_table.go")
	if err != nil {
		panic(err)
	}
	keys := map[string]string{}
	for _, m := range regexp.MustCompile(`(?:counter|worst)\("(\w+)", "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		keys[m[1]] = m[2]
	}
	return keys
}

func registryOf(st Status, err error) (*prometheus.Registry, *Journal) {
	j := NewJournal(10)
	return newRegistry(func() (Status, error) { return st, err }, j), j
}

func fullRegistry() *prometheus.Registry {
	r, j := registryOf(rich(), nil)
	takenOver(j, "crash", "done")
	takenOver(j, "sip", "vip1 does not answer SIP: silent")
	return r
}

// takenOver adds a takeover of 62 ms to the journal.
func takenOver(j *Journal, reason, outcome string) {
	e := Event{Kind: Takeover, VIP: "vip1", From: "pbx2", To: "pbx1", Reason: reason}
	e.Add("noticed", 0)
	id := j.Add(e)
	j.Update(id, func(e *Event) { e.Add("bound", 50*time.Millisecond) })
	for range 2 { // updates after the outcome do not count again
		j.Update(id, func(e *Event) {
			e.Add("router proven", 53*time.Millisecond)
			e.Add("sip answered", 62*time.Millisecond)
			e.Outcome = outcome
		})
	}
}

func TestMetricsAreClean(t *testing.T) {
	problems, err := testutil.GatherAndLint(fullRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestMetricsTable: docs/metrics.md describes every metric as it is, and no others.
func TestMetricsTable(t *testing.T) {
	families, err := fullRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	table := "| metric | type | labels | meaning |\n|---|---|---|---|\n"
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "sipalive_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, " "), f.GetHelp())
	}
	const path = "../docs/metrics.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(doc), "| metric |")
	if !found {
		t.Fatalf("%s has no table any more", path)
	}
	end := strings.Index(rest, "\n\n")
	if end < 0 {
		end = len(rest) - 1
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+table+rest[end+1:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff("| metric |"+rest[:end+1], table); diff != "" {
		t.Errorf("%s (-is +should be; go test -run MetricsTable -update rewrites it):\n%s", path, diff)
	}
}

func TestMetricsOfAStatus(t *testing.T) {
	r, j := registryOf(rich(), nil)
	takenOver(j, "crash", "done")
	takenOver(j, "sip", "vip1 does not answer SIP: silent")
	want := `# HELP sipalive_node_sip_up 1: the observer's probes of the node's PBX speak for it.
# TYPE sipalive_node_sip_up gauge
sipalive_node_sip_up{node="pbx1",observer="büro-3"} 1
sipalive_node_sip_up{node="pbx1",observer="pbx1"} 0
# HELP sipalive_takeovers_failed_total Takeovers by this node that ended otherwise than well.
# TYPE sipalive_takeovers_failed_total counter
sipalive_takeovers_failed_total{reason="sip",vip="vip1"} 1
# HELP sipalive_takeovers_total Takeovers by this node, by why.
# TYPE sipalive_takeovers_total counter
sipalive_takeovers_total{reason="crash",vip="vip1"} 1
sipalive_takeovers_total{reason="sip",vip="vip1"} 1
# HELP sipalive_target_certificate_expiry_timestamp_seconds When a SIP listener's certificate ends.
# TYPE sipalive_target_certificate_expiry_timestamp_seconds gauge
sipalive_target_certificate_expiry_timestamp_seconds{on="pbx1",target="main"} 1767323045
sipalive_target_certificate_expiry_timestamp_seconds{on="vip1",target="main"} 1767323045
# HELP sipalive_target_round_trip_seconds Of the last 128 answers of a SIP listener: median, p90, p99, max.
# TYPE sipalive_target_round_trip_seconds gauge
sipalive_target_round_trip_seconds{of="max",on="pbx1",target="main"} 0.004
sipalive_target_round_trip_seconds{of="max",on="vip1",target="main"} 0.004
sipalive_target_round_trip_seconds{of="median",on="pbx1",target="main"} 0.001
sipalive_target_round_trip_seconds{of="median",on="vip1",target="main"} 0.001
sipalive_target_round_trip_seconds{of="p90",on="pbx1",target="main"} 0.002
sipalive_target_round_trip_seconds{of="p90",on="vip1",target="main"} 0.002
sipalive_target_round_trip_seconds{of="p99",on="pbx1",target="main"} 0.003
sipalive_target_round_trip_seconds{of="p99",on="vip1",target="main"} 0.003
# HELP sipalive_vip_held 1: somebody holds it, as this node sees it.
# TYPE sipalive_vip_held gauge
sipalive_vip_held{vip="vip1"} 1
sipalive_vip_held{vip="vip2"} 0
sipalive_vip_held{vip="vip3"} 1
# HELP sipalive_vip_router_proven 1: the router reaches it at its holder; absent where that cannot be told.
# TYPE sipalive_vip_router_proven gauge
sipalive_vip_router_proven{vip="vip1"} 1
# HELP sipalive_vip_verified 1: it answered SIP at its holder; absent where that is not asked or not known yet.
# TYPE sipalive_vip_verified gauge
sipalive_vip_verified{vip="vip1"} 0
`
	names := regexp.MustCompile(`(?m)^# TYPE (\w+)`).FindAllStringSubmatch(want, -1)
	var only []string
	for _, n := range names {
		only = append(only, n[1])
	}
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), only...); err != nil {
		t.Error(err)
	}
	n, err := testutil.GatherAndCount(r, "sipalive_takeover_seconds")
	if err != nil || n != 1 {
		t.Errorf("%d histograms, %v: the failed takeover is none", n, err)
	}
}

// TestBindToProof: each proof took 3 ms. It counts whatever the outcome of the takeover,
// and only once however often the event is updated.
func TestBindToProof(t *testing.T) {
	families, err := fullRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "sipalive_bind_to_proof_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			if h.GetSampleCount() != 2 || math.Abs(h.GetSampleSum()-.006) > 1e-9 {
				t.Errorf("%d proofs that took %v s together, want 2 of 3 ms", h.GetSampleCount(), h.GetSampleSum())
			}
			return
		}
	}
	t.Error("no such metric")
}

// An agent that does not answer has no metrics at all.
func TestMetricsOfASilentAgent(t *testing.T) {
	r, _ := registryOf(Status{}, errors.New("the agent is ending"))
	if _, err := r.Gather(); err == nil {
		t.Error("gathered")
	}
}
