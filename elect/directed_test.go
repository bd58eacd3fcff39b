package elect_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sipalive/elect"
)

// The tests in this file guard rules that a second rule nearly always covers, so that
// random runs never notice if one is broken. Each test feeds one machine by hand.

const vip1 = elect.VIPID("vip1")

var abc = elect.NewVoterList("a", "b", "c")

// bench is machine b of {a, b, c}, past its quiet time.
type bench struct {
	t       *testing.T
	m       *elect.Machine
	now     elect.Instant
	seq     map[elect.Node]elect.Seq
	runtime *elect.Runtime
	durable *elect.Durable
	granted []elect.GrantEnd // the grant ends that the runtime directory has beside the record
	last    elect.Effects
	facts   []elect.Transition // all transitions so far
	highest elect.Epoch        // the highest epoch that the others tell of
}

func benchConfig() elect.Config {
	return elect.Config{Self: "b", Heartbeat: 200 * time.Millisecond, Lease: time.Second, Settle: time.Second, Stagger: 50 * time.Millisecond,
		HoldDown: time.Second, Exclude: time.Minute, PrepareTimeout: time.Second,
		Nodes: []elect.NodeConfig{{Name: "a", Voter: true, Holder: true}, {Name: "b", Voter: true, Holder: true}, {Name: "c", Voter: true, Holder: true}},
		VIPs:  []elect.VIPConfig{{ID: vip1, Name: "vip1", Weight: 1}}}
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: 1e12, seq: map[elect.Node]elect.Seq{}, durable: &elect.Durable{Active: abc, LongestLease: time.Second}}
	b.start(nil, 21)
	b.pass(1100 * time.Millisecond)
	return b
}

func (b *bench) start(held []elect.HeldVIP, instance elect.Instance) {
	m, err := elect.New(benchConfig(), elect.Restored{Runtime: b.runtime, Durable: b.durable, Held: held, Granted: b.granted}, instance, b.now, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.m = m
	b.step(elect.Tick{})
}

func (b *bench) pass(d time.Duration) {
	for end := b.now.Add(d); b.now < end; {
		b.now = min(end, b.m.Deadline())
		b.step(elect.Tick{})
	}
}

func (b *bench) step(ev elect.Event) elect.Effects {
	b.last = b.m.Step(b.now, ev)
	b.facts = append(b.facts, b.last.Transitions...)
	if b.last.Runtime != nil {
		b.runtime = b.last.Runtime
	}
	if len(b.last.Granted) > 0 { // one at most: the bench has one VIP
		b.granted = slices.Clone(b.last.Granted[len(b.last.Granted)-1:])
	}
	if d := b.last.Durable; d != nil {
		b.durable = d
		defer b.m.Step(b.now, elect.Stored{Version: d.Version})
	}
	return b.last
}

// hear delivers a message of node from under the instance inst.
func (b *bench) hear(from elect.Node, inst elect.Instance, msg elect.Message) elect.Effects {
	b.seq[from]++
	return b.step(elect.Received{From: from, Instance: inst, Seq: b.seq[from], Msg: msg})
}

func (b *bench) beat(from elect.Node, inst elect.Instance, holds ...elect.Hold) elect.Effects {
	return b.hear(from, inst, elect.Heartbeat{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, SIP: elect.SIPUp, Holds: holds})
}

// asked returns the voter's answer to an ask.
func (b *bench) asked(from elect.Node, inst elect.Instance, e elect.Epoch) elect.Refusal {
	b.t.Helper()
	eff := b.hear(from, inst, elect.Ask{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, Items: []elect.AskItem{{VIP: vip1, Epoch: e}}})
	for _, o := range eff.Send {
		if a, ok := o.Msg.(elect.Answer); ok {
			return a.Items[0].Refusal
		}
	}
	b.t.Fatal("no answer")
	return 0
}

func (b *bench) want(got, want elect.Refusal, what string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func release(holder elect.Node, inst elect.Instance, e elect.Epoch) elect.Release {
	return elect.Release{VIP: vip1, Holder: holder, Instance: inst, Epoch: e}
}

func TestReleasedEpochIsBarred(t *testing.T) {
	b := newBench(t)
	b.want(b.asked("a", 11, 5), elect.Granted, "first ask")
	b.hear("a", 11, release("a", 11, 5))
	b.want(b.asked("a", 11, 5), elect.RefusedStale, "late ask for what was given back")
	b.start(nil, 22)
	b.want(b.asked("a", 11, 5), elect.RefusedStale, "the same after a restart")
	b.want(b.asked("a", 11, 6), elect.Granted, "the next epoch")
}

// A restarted voter is bound to the end of its grant's last renewal and no longer. If it
// does not find that end, or finds another grant's, it is bound for a full lease from its
// start.
func TestRestartedVoterIsBoundToTheEnd(t *testing.T) {
	for _, c := range []struct {
		what   string
		spoil  func(b *bench)
		before time.Duration // from the restart to the grant's end
	}{
		{"found", func(*bench) {}, 500 * time.Millisecond},
		{"lost", func(b *bench) { b.granted = nil }, time.Second},
		{"of another epoch", func(b *bench) { b.granted[0].Epoch-- }, time.Second},
		{"later than any grant's", func(b *bench) { b.granted[0].Until += 1e12 }, time.Second},
	} {
		b := newBench(t)
		b.want(b.asked("a", 11, 5), elect.Granted, "first ask")
		b.pass(600 * time.Millisecond)
		b.want(b.asked("a", 11, 5), elect.Granted, "renewal")
		b.pass(500 * time.Millisecond)
		c.spoil(b)
		b.start(nil, 22)
		b.pass(c.before - 10*time.Millisecond)
		b.want(b.asked("c", 31, 6), elect.RefusedHeld, c.what+": before the end")
		b.pass(20 * time.Millisecond)
		b.want(b.asked("c", 31, 6), elect.Granted, c.what+": after the end")
	}
}

// A record that was written during the quiet time does not know what was granted before.
func TestQuietTimeOutlivesARestart(t *testing.T) {
	b := newBench(t)
	b.runtime = nil
	b.start(nil, 22)
	b.pass(600 * time.Millisecond)
	b.start(nil, 23)
	b.want(b.asked("a", 11, 5), elect.RefusedQuiet, "restarted while quiet")
	b.pass(300 * time.Millisecond)
	b.want(b.asked("a", 11, 5), elect.RefusedQuiet, "until a lease after the loss")
	b.pass(200 * time.Millisecond)
	b.want(b.asked("a", 11, 5), elect.Granted, "after that, restart or not")
}

// The disk is slower than the records come. What is in the stored record counts, though
// newer records are always on their way.
func TestStoredCountsBesideNewerRecords(t *testing.T) {
	b := newBench(t)
	ask := func(from elect.Node, lease time.Duration, e elect.Epoch) elect.Effects {
		b.seq[from]++
		return b.m.Step(b.now, elect.Received{From: from, Instance: 11, Seq: b.seq[from],
			Msg: elect.Ask{Lists: elect.Lists{File: abc, Active: abc}, Lease: lease, Items: []elect.AskItem{{VIP: vip1, Epoch: e}}}})
	}
	refusal := func(eff elect.Effects) elect.Refusal {
		for _, o := range eff.Send {
			if a, ok := o.Msg.(elect.Answer); ok {
				return a.Items[0].Refusal
			}
		}
		t.Fatal("no answer")
		return 0
	}
	eff := ask("a", 2*time.Second, 5)
	b.want(refusal(eff), elect.RefusedQuiet, "a longer lease than the disk knows")
	if eff.Durable == nil {
		t.Fatal("the longer lease is not put on disk")
	}
	version := eff.Durable.Version
	eff = ask("a", time.Second, 6)
	b.want(refusal(eff), elect.Granted, "the usual lease")
	if eff.Durable == nil || eff.Durable.Version <= version {
		t.Fatal("the new epoch is not put on disk")
	}
	b.m.Step(b.now, elect.Stored{Version: version})
	b.want(refusal(ask("a", 2*time.Second, 7)), elect.Granted, "the longer lease, now on disk")
}

func TestReleaseNamesAnInstance(t *testing.T) {
	b := newBench(t)
	b.want(b.asked("a", 12, 5), elect.Granted, "the new instance asks")
	// A voter passes on a release that a's old instance sent.
	b.hear("c", 31, elect.Passed{Release: elect.Release{VIP: vip1, Holder: "a", Instance: 11, Epoch: 5, Successor: "b", SuccessorInstance: b.m.Instance(),
		Lease: time.Second, Lists: elect.Lists{File: abc, Active: abc}}})
	if g, _, _ := b.m.Vote(vip1); g.Holder != "a" || g.Instance != 12 {
		t.Errorf("the old instance's release took the new one's grant: %+v", g)
	}
}

func TestInstanceIsNewPerBoot(t *testing.T) {
	b := newBench(t)
	first := b.m.Instance()
	b.start(nil, 22)
	if b.m.Instance() != first {
		t.Error("an agent's restart changed the instance")
	}
	b.runtime = nil
	b.start(nil, 23)
	if b.m.Instance() != 23 {
		t.Errorf("a boot without the runtime directory has instance %d", b.m.Instance())
	}
}

func TestGrantOfAnOldInstanceIsAnothers(t *testing.T) {
	b := newBench(t)
	b.want(b.asked("a", 11, 5), elect.Granted, "first boot asks")
	b.want(b.asked("a", 12, 6), elect.RefusedHeld, "second boot asks")
}

func TestStaleEpochs(t *testing.T) {
	b := newBench(t)
	b.want(b.asked("a", 11, 5), elect.Granted, "a asks")
	b.want(b.asked("a", 11, 4), elect.RefusedStale, "a asks below its own grant")
	b.pass(1100 * time.Millisecond)
	b.want(b.asked("c", 31, 5), elect.RefusedStale, "c asks at the epoch of a's lapsed grant")
	b.want(b.asked("c", 31, 6), elect.Granted, "c asks above it")
}

func TestHigherEpochSeenLetsGo(t *testing.T) {
	b := newBench(t)
	b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Second), Since: b.now}}, 21)
	if !b.last.Want[0].Hold {
		t.Fatal("the restored lease is not held")
	}
	if eff := b.beat("a", 11, elect.Hold{VIP: vip1, Epoch: 6}); eff.Want[0].Hold {
		t.Error("a heartbeat shows a under epoch 6; epoch 5 is still held")
	}
	b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 7, Until: b.now.Add(time.Second), Since: b.now}}, 21)
	if eff := b.hear("a", 11, elect.Prepare{VIP: vip1, Epoch: 8}); eff.Want[0].Hold {
		t.Error("a prepare shows a under epoch 8; epoch 7 is still held")
	}
}

func TestGivenUpEpochIsNotHeldAfterRestart(t *testing.T) {
	b := newBench(t)
	held := []elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Minute), Since: b.now}}
	b.start(held, 21)
	b.beat("a", 11, elect.Hold{VIP: vip1, Epoch: 6}) // b lets go; its agent dies before it unbinds
	b.start(held, 21)
	if b.last.Want[0].Hold {
		t.Error("epoch 5 was given up and is held again")
	}
}

func TestRestoredLeaseIsCut(t *testing.T) {
	b := newBench(t)
	b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Minute), Since: b.now}}, 21)
	if left := b.last.Want[0].Until.Sub(b.now); left > elect.Usable(time.Second) {
		t.Errorf("a lease of a second lasts %s", left)
	}
}

func TestAskedEpochIsRemembered(t *testing.T) {
	b := newBench(t)
	b.start([]elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: b.now.Add(time.Second), Since: b.now}}, 21)
	b.pass(100 * time.Millisecond)
	if got := b.runtime.VIPs[vip1].Asked; got < 5 {
		t.Errorf("the runtime directory remembers epoch %d as asked for, not 5", got)
	}
}

func TestReleasePassesNoVoteOverLists(t *testing.T) {
	b := newBench(t)
	b.want(b.asked("a", 11, 5), elect.Granted, "a asks")
	r := release("a", 11, 5)
	r.Successor, r.SuccessorInstance, r.Nonce, r.Lease = "c", 31, 77, time.Second
	other := elect.NewVoterList("a", "c", "d")
	r.Lists = elect.Lists{File: other, Active: other}
	for _, o := range b.hear("a", 11, r).Send {
		if p, ok := o.Msg.(elect.Passed); ok {
			t.Errorf("passed on to a successor under another list: %+v", p)
		}
	}
	b.want(b.asked("c", 31, 7), elect.Granted, "the successor asks under this list")
}

func TestListCountsOnceItIsOnDisk(t *testing.T) {
	b := &bench{t: t, now: 1e12, seq: map[elect.Node]elect.Seq{}}
	m, err := elect.New(benchConfig(), elect.Restored{}, 21, b.now, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	m.Step(b.now, elect.Tick{})
	eff := m.Step(b.now, elect.Command{ID: 1, Kind: elect.CommandAdopt})
	if got := m.Lists().Active; got != nil {
		t.Fatalf("list %v is in use before it is on disk", got)
	}
	if eff.Durable == nil || !eff.Durable.Active.Equal(abc) {
		t.Fatalf("the list is not on its way to disk: %+v", eff.Durable)
	}
	m.Step(b.now, elect.Stored{Version: eff.Durable.Version})
	if got := m.Lists().Active; !got.Equal(abc) {
		t.Errorf("list %v is in use after it is on disk", got)
	}
}

// TestReadyNamesItsNonce: a release with the nonce of another ready gives no lease by
// itself.
func TestReadyNamesItsNonce(t *testing.T) {
	for _, right := range []bool{true, false} {
		b := newBench(t)
		b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
		b.want(b.asked("a", 11, 5), elect.Granted, "a asks")
		b.beat("a", 11, elect.Hold{VIP: vip1, Epoch: 5})
		b.hear("a", 11, elect.Prepare{VIP: vip1, Epoch: 5})
		nonce := elect.Nonce(0)
		for _, o := range b.step(elect.Prepared{VIP: vip1, Epoch: 5}).Send {
			if r, ok := o.Msg.(elect.Ready); ok {
				nonce = r.Nonce
			}
		}
		if nonce == 0 {
			t.Fatal("not ready")
		}
		if !right {
			nonce++
		}
		r := release("a", 11, 5)
		r.Successor, r.SuccessorInstance, r.Nonce, r.Lease, r.Voted = "b", b.m.Instance(), nonce, time.Second, true
		r.Lists = elect.Lists{File: abc, Active: abc}
		if eff := b.hear("a", 11, r); eff.Want[0].Hold != right {
			t.Errorf("right nonce %v, held %v", right, eff.Want[0].Hold)
		}
	}
}

// BenchmarkSteadyStep is a holder's step on a peer's heartbeat.
func BenchmarkSteadyStep(b *testing.B) {
	n := &bench{now: 1e12, seq: map[elect.Node]elect.Seq{}, durable: &elect.Durable{Active: abc, LongestLease: time.Second}}
	m, err := elect.New(benchConfig(), elect.Restored{Durable: n.durable, Runtime: &elect.Runtime{Instance: 21},
		Held: []elect.HeldVIP{{VIP: vip1, Epoch: 5, Until: n.now.Add(time.Minute), Since: n.now}}}, 21, n.now, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		b.Fatal(err)
	}
	m.Step(n.now, elect.Health{Node: "b", SIP: elect.SIPUp})
	beat := elect.Heartbeat{Lists: elect.Lists{File: abc, Active: abc}, Lease: time.Second, SIP: elect.SIPUp}
	b.ReportAllocs()
	for b.Loop() {
		n.now += elect.Instant(time.Millisecond)
		n.seq["a"]++
		eff := m.Step(n.now, elect.Received{From: "a", Instance: 11, Seq: n.seq["a"], Msg: beat})
		for _, o := range eff.Send {
			n.seq["a"]++
			if h, ok := o.Msg.(elect.Heartbeat); ok && o.To == "a" && len(h.Holds) > 0 {
				m.Step(n.now, elect.Received{From: "a", Instance: 11, Seq: n.seq["a"],
					Msg: elect.Answer{Re: o.Seq, Items: []elect.AnswerItem{{VIP: vip1, Epoch: h.Holds[0].Epoch}}}})
			}
		}
	}
	if !m.Step(n.now, elect.Tick{}).Want[0].Hold {
		b.Fatal("the lease was lost")
	}
}
