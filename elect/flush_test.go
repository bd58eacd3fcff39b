package elect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// flushers are three machines. The tests carry the packets between them.
type flushers struct {
	t   *testing.T
	now Instant
	ms  map[Node]*Machine
	out map[Node]Effects
}

func newFlushers(t *testing.T) *flushers {
	t.Helper()
	f := &flushers{t: t, now: 1e9, ms: map[Node]*Machine{}, out: map[Node]Effects{}}
	var nodes []NodeConfig
	for _, n := range []Node{"a", "b", "c"} {
		nodes = append(nodes, NodeConfig{Name: n, Voter: true, Holder: true, Capacity: 1})
	}
	for _, n := range nodes {
		m, err := New(Config{Self: n.Name, Nodes: nodes, Heartbeat: 200 * time.Millisecond, Lease: time.Second, FlushTimeout: time.Second},
			Restored{}, 7, f.now, rand.New(rand.NewPCG(1, 2)))
		if err != nil {
			t.Fatal(err)
		}
		f.ms[n.Name] = m
	}
	return f
}

// step feeds an event, and copies what the effects share with the machine.
func (f *flushers) step(n Node, ev Event) Effects {
	eff := f.ms[n].Step(f.now, ev)
	eff.Send = append([]Outgoing(nil), eff.Send...)
	eff.Flush = append([]FlushDue(nil), eff.Flush...)
	eff.Answers = append([]CommandAnswer(nil), eff.Answers...)
	return eff
}

func (f *flushers) alive(n Node, of ...Node) {
	for i, p := range of {
		f.step(n, Received{From: p, Instance: 7, Seq: Seq(i + 1), Msg: Heartbeat{}})
	}
}

func requests(eff Effects) (ids map[Node]uint64) {
	ids = map[Node]uint64{}
	for _, o := range eff.Send {
		if r, is := o.Msg.(Request); is {
			ids[o.To] = r.ID
		}
	}
	return ids
}

// TestFlushAsksEveryLiveNodeOnce: c is dead; b is asked again and again, and its first
// report is lost. Each live node runs its actions once.
func TestFlushAsksEveryLiveNodeOnce(t *testing.T) {
	f := newFlushers(t)
	f.alive("a", "b")
	f.alive("b", "a")
	eff := f.step("a", Command{ID: 5, Kind: CommandFlush})
	ids := requests(eff)
	if len(eff.Flush) != 1 || eff.Flush[0].From != "a" || len(ids) != 1 || ids["b"] == 0 {
		t.Fatalf("flush %+v, requests %v", eff.Flush, ids)
	}
	f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a", Results: []ActionResult{{Action: "x", OK: true}}})
	ask := Received{From: "a", Instance: 7, Seq: 9, Msg: Request{ID: ids["b"], Kind: CommandFlush}}
	due := f.step("b", ask).Flush
	if len(due) != 1 || due[0].From != "a" {
		t.Fatalf("b runs %+v", due)
	}
	if again := f.step("b", ask).Flush; len(again) != 0 {
		t.Errorf("asked again, b runs its actions again: %+v", again)
	}
	f.step("b", Flushed{ID: due[0].ID, From: "a", Results: []ActionResult{{Action: "y", Text: "refused"}}}) // this report is lost
	report := Report{}
	for _, o := range f.step("b", ask).Send {
		if r, is := o.Msg.(Report); is {
			report = r
		}
	}
	if report.ID != ids["b"] || len(report.Results) != 1 {
		t.Fatalf("asked again, b reports %+v", report)
	}
	answers := f.step("a", Received{From: "b", Instance: 7, Seq: 10, Msg: report}).Answers
	if len(answers) != 1 || answers[0].ID != 5 || answers[0].Error != "" {
		t.Fatalf("answers %+v", answers)
	}
	r := answers[0].Reports
	if len(r) != 3 || r[0].Results[0].Action != "x" || r[1].Results[0].Text != "refused" || r[2].Failed != "not heard" {
		t.Errorf("reports %+v", r)
	}
}

// TestFlushOfManyActions: results that do not fit into one packet come in several. Any
// packet may be lost, come twice or out of order; no result is cut.
func TestFlushOfManyActions(t *testing.T) {
	for _, n := range []int{0, 1, reportPart, reportPart + 1, 1000} {
		f := newFlushers(t)
		f.alive("a", "b")
		f.alive("b", "a")
		eff := f.step("a", Command{ID: 5, Kind: CommandFlush})
		f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a", Results: numbered(n)})
		ask := Received{From: "a", Instance: 7, Seq: 9, Msg: Request{ID: requests(eff)["b"], Kind: CommandFlush}}
		due := f.step("b", ask).Flush[0]
		sent := f.step("b", Flushed{ID: due.ID, From: "a", Results: numbered(n)}).Send
		var answers []CommandAnswer
		for round := range 2 {
			for i := range sent {
				part, is := sent[len(sent)-1-i].Msg.(Report)
				if !is || round == 0 && i%3 == 1 { // lost
					continue
				}
				if len(answers) > 0 {
					t.Fatalf("%d results: answered before all had come", n)
				}
				answers = f.step("a", Received{From: "b", Instance: 7, Seq: Seq(10 + round*len(sent) + i), Msg: part}).Answers
				if len(answers) > 0 {
					break
				}
			}
			if len(answers) > 0 {
				break
			}
			sent = f.step("b", ask).Send
		}
		if len(answers) != 1 {
			t.Fatalf("%d results: answers %+v", n, answers)
		}
		for _, r := range answers[0].Reports[:2] {
			if r.Failed != "" || !slices.Equal(r.Results, numbered(n)) && n > 0 || len(r.Results) != n {
				t.Errorf("%d results: %s %q tells of %d", n, r.Node, r.Failed, len(r.Results))
			}
		}
	}
}

func numbered(n int) (all []ActionResult) {
	for i := range n {
		all = append(all, ActionResult{Action: fmt.Sprint("action ", i), OK: i%2 == 0, Took: time.Duration(i)})
	}
	return all
}

// TestPartsThatDoNotFit: a report whose First, Total and number of results do not agree
// is ignored.
func TestPartsThatDoNotFit(t *testing.T) {
	f := newFlushers(t)
	f.alive("a", "b")
	eff := f.step("a", Command{ID: 5, Kind: CommandFlush})
	f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a"})
	id := requests(eff)["b"]
	for i, r := range []Report{
		{Total: 1}, {Total: 1, First: 56, Results: numbered(1)}, {Total: 2, Results: numbered(1)}, {Total: 0, Results: numbered(1)},
		{Total: 60, First: 3, Results: numbered(56)}, {Total: 60, First: 56, Results: numbered(5)}, {Total: maxReports + 1, Results: numbered(56)},
		{Total: 56, First: 56}, {Total: 0, First: 56}, {Total: 60, First: 1<<64 - 72, Results: numbered(56)},
	} {
		r.ID = id
		if eff := f.step("a", Received{From: "b", Instance: 7, Seq: Seq(10 + i), Msg: r}); len(eff.Answers) > 0 {
			t.Errorf("%+v ends the flush", r)
		}
	}
	f.step("a", Received{From: "b", Instance: 7, Seq: 30, Msg: Report{ID: id, Total: 57, Results: numbered(56)}})
	if eff := f.step("a", Received{From: "b", Instance: 7, Seq: 31, Msg: Report{ID: id, Total: 1, Results: numbered(1)}}); len(eff.Answers) > 0 {
		t.Error("a report of another length ends the flush")
	}
	eff = f.step("a", Received{From: "b", Instance: 7, Seq: 32, Msg: Report{ID: id, Total: 57, First: 56, Results: numbered(1)}})
	if len(eff.Answers) != 1 || len(eff.Answers[0].Reports[1].Results) != 57 {
		t.Errorf("the whole: %+v", eff.Answers)
	}
}

// TestFlushThatTakesAnHour: a node that is asked for longer than requests are remembered
// still runs its actions only once.
func TestFlushThatTakesAnHour(t *testing.T) {
	f := newFlushers(t)
	f.ms["a"].cfg.FlushTimeout = time.Hour
	f.alive("a", "b")
	f.alive("b", "a")
	eff := f.step("a", Command{ID: 5, Kind: CommandFlush})
	f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a"})
	ask := Received{From: "a", Instance: 7, Msg: Request{ID: requests(eff)["b"], Kind: CommandFlush}}
	var due []FlushDue
	for range 7000 { // for 58 minutes
		f.now = f.now.Add(500 * time.Millisecond)
		ask.Seq++
		due = append(due, f.step("b", ask).Flush...)
		if eff := f.step("a", Tick{}); len(eff.Answers) > 0 {
			t.Fatalf("answered after %v: %+v", f.now.Sub(1e9), eff.Answers)
		}
	}
	if len(due) != 1 {
		t.Fatalf("b runs its actions %d times", len(due))
	}
	for _, o := range f.step("b", Flushed{ID: due[0].ID, From: "a", Results: numbered(1)}).Send {
		if r, is := o.Msg.(Report); is {
			eff = f.step("a", Received{From: "b", Instance: 7, Seq: ask.Seq + 1, Msg: r})
		}
	}
	if len(eff.Answers) != 1 || len(eff.Answers[0].Reports[1].Results) != 1 {
		t.Errorf("in the end %+v", eff.Answers)
	}
}

func TestFlushEndsWithoutAnAnswer(t *testing.T) {
	f := newFlushers(t)
	f.alive("a", "b")
	eff := f.step("a", Command{ID: 5, Kind: CommandFlush})
	f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a"})
	asked := 0
	for range 100 {
		f.now = f.now.Add(50 * time.Millisecond)
		eff := f.step("a", Tick{})
		asked += len(requests(eff))
		if len(eff.Answers) > 0 {
			if r := eff.Answers[0].Reports[1]; r.Failed != "no answer in time" {
				t.Errorf("report %+v", r)
			}
			if asked < 5 {
				t.Errorf("asked %d times", asked)
			}
			return
		}
	}
	t.Error("it never ends")
}

// TestFlushEndsWithTheConfiguration: nodes come, go and change places while a flush is
// under way. What was reported before is in the answer; later reports are ignored.
func TestFlushEndsWithTheConfiguration(t *testing.T) {
	for _, names := range [][]Node{{"d", "c", "b", "a"}, {"c", "a"}} {
		f := newFlushers(t)
		f.alive("a", "b")
		eff := f.step("a", Command{ID: 5, Kind: CommandFlush})
		ids := requests(eff)
		f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a", Results: []ActionResult{{Action: "x", OK: true}}})

		cfg := f.ms["a"].cfg
		cfg.Nodes = nil
		for _, n := range names {
			cfg.Nodes = append(cfg.Nodes, NodeConfig{Name: n, Voter: true, Holder: true, Capacity: 1})
		}
		answers := f.step("a", Reconfigure{cfg}).Answers
		if len(answers) != 1 || answers[0].ID != 5 {
			t.Fatalf("%v: answers %+v", names, answers)
		}
		r := answers[0].Reports
		if len(r) != 3 || r[0].Failed != "" || len(r[0].Results) != 1 || r[1].Failed != "the configuration changed" || r[2].Failed != "not heard" {
			t.Errorf("%v: reports %+v", names, r)
		}
		for i, n := range names {
			late := Received{From: n, Instance: 7, Seq: Seq(20 + i), Msg: Report{ID: ids["b"]}}
			if again := f.step("a", late).Answers; len(again) != 0 {
				t.Errorf("%v: answered again after %s: %+v", names, n, again)
			}
		}
		f.step("a", Flushed{ID: eff.Flush[0].ID, From: "a"})
		f.now = f.now.Add(10 * time.Second)
		if again := f.step("a", Tick{}).Answers; len(again) != 0 {
			t.Errorf("%v: answered again in the end: %+v", names, again)
		}
		if eff := f.step("a", Command{ID: 6, Kind: CommandFlush}); len(eff.Flush) != 1 {
			t.Errorf("%v: the next flush %+v", names, eff)
		}
	}
}
