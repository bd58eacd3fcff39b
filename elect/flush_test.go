package elect

import (
	"math/rand/v2"
	"testing"
	"time"
)

// flushers are three machines that hear each other, and packets one can lose.
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

// step feeds an event and copies what the effects share with the machine.
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

// TestFlushAsksEveryLiveNodeOnce: one is dead, one answers twice, one loses its
// first answer; each runs its actions once.
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

// TestFlushEndsWithTheConfiguration: nodes come, go and change places while a
// flush is under way; what was reported until then is told, later reports are not
// taken for anything.
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
