package control

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// documented returns the example below "`status --json`:" in the design, without the
// white space that formats it.
func documented(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(doc), "`status --json`:\n```json\n")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/design.md §8 shows no status --json any more")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(example)); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

func TestStatusJSONIsTheDocumentedOne(t *testing.T) {
	_, _, dir := start(t, steady())
	got, err := NewClient(dir).StatusJSON(ctxFor(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(documented(t), string(got)); diff != "" {
		t.Errorf("-design §8, +status --json:\n%s", diff)
	}
}

func TestStatusJSONExtensions(t *testing.T) {
	st := troubled()
	st.Counters = map[string]uint64{"member_dropped_replay": 2}
	got, err := encode(st.normal())
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, got, "", " "); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", indented.Bytes())
	var back Status
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	again, err := encode(back)
	if err != nil || !bytes.Equal(got, again) {
		t.Errorf("status changes on its way through a client (%v):\n%s\n%s", err, got, again)
	}
}

func TestStatusNeverHasNull(t *testing.T) {
	for _, st := range []Status{{}, {Nodes: []NodeStatus{{}}, VIPs: []VIPStatus{{}}}} {
		got, err := encode(st.normal())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), "null") {
			t.Errorf("null in %s", got)
		}
	}
	if got, err := encode(Plan{}.normal()); err != nil || strings.Contains(string(got), "null") {
		t.Errorf("null in plan %s (%v)", got, err)
	}
}

func TestStatusTable(t *testing.T) {
	for name, st := range map[string]Status{"status-steady.txt": example(), "status-troubled.txt": troubled(), "status-empty.txt": {}} {
		var b bytes.Buffer
		if err := WriteStatus(&b, st, Look{Location: time.UTC, Now: at("05:00:00.000")}); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
}

// For each VIP away from home the status says how it gets home, or what prevents that.
func TestWayHome(t *testing.T) {
	for want, change := range map[string]func(*Status){
		"vip1 is away from pbx2; `sipalive failback vip1` brings it home": func(*Status) {},
		"vip1 is away from pbx2, which is silent":                         func(st *Status) { st.Nodes[1].Alive, st.Nodes[1].Drained = false, true },
		"vip1 is away from pbx2, which is drained":                        func(st *Status) { st.Nodes[1].Drained = true },
		"vip1 is away from pbx2, which is not fit":                        func(st *Status) { st.Nodes[1].Fit = false },
		"vip1 is away from pbx2, which came back lately":                  func(st *Status) { st.Nodes[1].HeldDown = true },
		"vip1 is away from pbx2: it comes home by itself":                 func(st *Status) { st.FailbackAuto = true },
	} {
		st := example()
		st.Nodes = append(st.Nodes, NodeStatus{Name: "pbx2", Alive: true, Fit: true})
		st.VIPs[0].AwayFrom = "pbx2"
		change(&st)
		if got := st.unusual(); len(got) == 0 || got[len(got)-1] != want {
			t.Errorf("%q, want last %q", got, want)
		}
	}
}

func TestStatusInColor(t *testing.T) {
	var plain, colored bytes.Buffer
	look := Look{Location: time.UTC, Now: at("05:00:00.000")}
	if err := WriteStatus(&plain, troubled(), look); err != nil {
		t.Fatal(err)
	}
	look.Color = true
	if err := WriteStatus(&colored, troubled(), look); err != nil {
		t.Fatal(err)
	}
	golden(t, "status-color.txt", colored.Bytes())
	if got := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(colored.String(), ""); got != plain.String() {
		t.Errorf("colours change the text:\n%s", cmp.Diff(plain.String(), got))
	}
}

func TestPlanTable(t *testing.T) {
	var b bytes.Buffer
	p := Plan{Without: []string{"pbx1", "pbx2"}, VIPs: []PlannedVIP{
		{Name: "vip1", Holder: "pbx1", Would: "pbx3", Reason: "pbx3: spare, first in prefer"},
		{Name: "vip2", Holder: "pbx2", Reason: "no fit node"},
		{Name: "cdr", Role: true, Would: "pbx3", Reason: "pbx3: spare, as preferred"},
	}}
	if err := WritePlan(&b, p); err != nil {
		t.Fatal(err)
	}
	if err := WritePlan(&b, Plan{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.txt", b.Bytes())
}

func TestHoldsAndSpare(t *testing.T) {
	st := troubled()
	for name, want := range map[string][2]bool{"vip1": {true, true}, "vip2": {false, true}, "cdr": {true, true}, "billing": {false, true}, "vip9": {}} {
		if holds, known := st.Holds(name); holds != want[0] || known != want[1] {
			t.Errorf("Holds(%s) = %v, %v, want %v", name, holds, known, want)
		}
	}
	spare := func(change func(*Status)) bool {
		st := example()
		st.VIPs[0].Holder = "pbx2"
		change(&st)
		return st.Spare()
	}
	if !spare(func(*Status) {}) {
		t.Error("a fit node without a VIP is not spare")
	}
	if !spare(func(st *Status) { st.Roles = []RoleStatus{{Name: "cdr", Holder: "pbx1"}} }) {
		t.Error("a role makes a node not spare")
	}
	for name, change := range map[string]func(*Status){
		"holder":  func(st *Status) { st.VIPs[0].Holder = "pbx1" },
		"unfit":   func(st *Status) { st.Nodes[0].Fit = false },
		"unknown": func(st *Status) { st.Node = "pbx7" },
	} {
		if spare(change) {
			t.Errorf("%s: spare", name)
		}
	}
}

// If the answering node knows how long the router proof took, people see it too.
func TestStatusShowsProof(t *testing.T) {
	st := example()
	st.VIPs[0].Proof = Millis(12340 * time.Microsecond)
	var b bytes.Buffer
	if err := WriteStatus(&b, st, Look{Location: time.UTC, Color: true}); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[32mproven in 12.3 ms\x1b[0m"; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
	text, err := json.Marshal(st)
	if err != nil || !strings.Contains(string(text), `"proof_ms":12.34`) {
		t.Errorf("%s, %v", text, err)
	}
}
