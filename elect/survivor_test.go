package elect_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sipalive/elect"
)

// The tests in this file guard a survivor's rules (docs/design.md §4.6) that a second
// rule nearly always covers. Each feeds one machine by hand.

// aloneBench is machine b among voters. It has just started and hears nobody; vip1 is
// announced.
func aloneBench(t *testing.T, voters ...elect.Node) *bench {
	b := &bench{t: t, now: 1e12, seq: map[elect.Node]elect.Seq{}, durable: &elect.Durable{Active: elect.NewVoterList(voters...), LongestLease: time.Second}}
	cfg := benchConfig()
	cfg.Survivor, cfg.SurvivorAfter, cfg.VIPs[0].Announced = elect.SurvivorAlways, 3*time.Second, true
	cfg.Nodes = b.nodes(voters...)
	m, err := elect.New(cfg, elect.Restored{Durable: b.durable}, 21, b.now, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		t.Fatal(err)
	}
	b.m = m
	b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
	return b
}

func (b *bench) nodes(voters ...elect.Node) (nodes []elect.NodeConfig) {
	for _, n := range voters {
		nodes = append(nodes, elect.NodeConfig{Name: n, Voter: true, Holder: true})
	}
	return nodes
}

// withVIPs gives the machine n VIPs, all announced.
func (b *bench) withVIPs(n int) {
	cfg := benchConfig()
	cfg.Survivor, cfg.SurvivorAfter, cfg.VIPs[0].Announced = elect.SurvivorAlways, 3*time.Second, true
	for i := len(cfg.VIPs); i < n; i++ {
		id := elect.VIPID(fmt.Sprintf("198.51.100.%d", i))
		cfg.VIPs = append(cfg.VIPs, elect.VIPConfig{ID: id, Name: string(id), Weight: 1, Announced: true})
	}
	b.step(elect.Reconfigure{Config: cfg})
}

// live answers the machine's questions for d as a gateway would. It stops early when done
// reports true.
func (b *bench) live(d time.Duration, done func() bool) {
	for end := b.now.Add(d); b.now < end && !done(); {
		b.now = min(end, b.m.Deadline())
		b.answer(b.step(elect.Tick{}))
	}
}

func (b *bench) answer(eff elect.Effects) {
	for _, q := range slices.Clone(eff.Questions) {
		b.step(elect.Evidence{VIP: q.VIP, Kind: q.Kind, Sent: b.now})
	}
}

func (b *bench) held() bool { return b.m.Status().VIPs[0].State == elect.Surviving }

func (b *bench) never() bool { return false }

func TestSurvivorAsksFirst(t *testing.T) {
	b := aloneBench(t, "a", "b", "c")
	asked, start := 0, b.now
	for !b.held() && b.now < start.Add(20*time.Second) {
		b.now = b.m.Deadline()
		eff := b.step(elect.Tick{})
		for _, q := range eff.Questions {
			if q.Kind == elect.AskOwner && !b.held() {
				asked++
			}
		}
		b.answer(eff)
	}
	if !b.held() || asked < 15 {
		t.Errorf("held %v after %d questions", b.held(), asked)
	}
	if took := b.now.Sub(start); took < 4*time.Second || took > 5*time.Second {
		t.Errorf("after %s, want a lease and 3 s", took)
	}
}

// A node that slept has heard no answer, so its earlier questions do not count.
func TestSurvivorThatSleptAsksAnew(t *testing.T) {
	b := aloneBench(t, "a", "b", "c")
	b.live(3900*time.Millisecond, b.held)
	b.now = b.now.Add(350 * time.Millisecond)
	b.step(elect.Evidence{VIP: vip1, Kind: elect.AskGateway, Sent: b.now.Add(-time.Millisecond)})
	b.live(time.Second, b.held)
	if b.held() {
		t.Error("took the VIP on questions whose answers it cannot have heard")
	}
	b.live(time.Second, b.held)
	if !b.held() {
		t.Error("did not take the VIP after as many more")
	}
}

// A question that was held back, so that the switch does not shut the port, proves
// nothing. Nor does a question while the gateway is silent.
func TestSurvivorCountsWhatLeft(t *testing.T) {
	for _, lost := range []elect.QuestionKind{elect.AskOwner, elect.AskGateway} {
		b := aloneBench(t, "a", "b", "c")
		for end := b.now.Add(20 * time.Second); b.now < end; {
			b.now = b.m.Deadline()
			eff := b.step(elect.Tick{})
			eff.Questions = slices.DeleteFunc(slices.Clone(eff.Questions), func(q elect.Question) bool { return q.Kind == lost })
			b.answer(eff)
		}
		if b.held() {
			t.Errorf("took the VIP though nothing came of question %d", lost)
		}
	}
}

// However many VIPs there are, questions must stay rare: a switch shuts a port that sends
// 16 ARP frames a second.
func TestSurvivorsOfManyAskSlowly(t *testing.T) {
	b := aloneBench(t, "a", "b", "c")
	b.withVIPs(10)
	asked := map[elect.VIPID]int{}
	taken := map[elect.VIPID]elect.Instant{}
	var all []elect.Instant
	start, first := b.now, elect.Instant(0)
	for b.now < start.Add(20*time.Second) {
		b.now = b.m.Deadline()
		eff := b.step(elect.Tick{})
		for _, v := range b.m.Status().VIPs {
			if v.State == elect.Surviving && taken[v.ID] == 0 {
				taken[v.ID], first = b.now, max(first, b.now)
				if asked[v.ID] < 2 || len(all) < 15 {
					t.Errorf("%s taken after %d questions, %d of them for it", v.ID, len(all), asked[v.ID])
				}
			}
		}
		for _, q := range eff.Questions {
			if q.Kind == elect.AskOwner {
				all = append(all, b.now)
				asked[q.VIP]++
			}
		}
		b.answer(eff)
	}
	for i, at := range all {
		if i >= 9 && at.Sub(all[i-9]) < time.Second {
			t.Fatalf("ten questions in %v", at.Sub(all[i-9]))
		}
	}
	if len(taken) != 10 {
		t.Errorf("%d of 10 taken", len(taken))
	}
	t.Logf("the last of %d taken %v after the start", len(taken), first.Sub(start))
}

// A node that answers for one VIP is there, and only this node does not hear it. What was
// asked before then proves nothing for the other VIPs either.
func TestSignOfOneNodeIsASignForAllVIPs(t *testing.T) {
	for node, may := range map[elect.Node]bool{"c": false, "": true} {
		b := aloneBench(t, "a", "b", "c")
		b.withVIPs(2)
		b.live(3*time.Second, b.held)
		for range 20 {
			b.step(elect.Sign{VIP: b.m.Status().VIPs[1].ID, Node: node})
			b.live(200*time.Millisecond, b.held)
		}
		if b.held() != may {
			t.Errorf("sign of %q for another VIP: held %v", node, b.held())
		}
	}
}

// Of two nodes that ask at once, the one configured first goes on.
func TestSurvivorsTakeTurns(t *testing.T) {
	for node, may := range map[elect.Node]bool{"a": false, "c": true, "": false} {
		b := aloneBench(t, "a", "b", "c")
		b.live(3*time.Second, b.held)
		for range 20 {
			b.step(elect.Sign{VIP: vip1, Node: node, Asks: node != ""})
			b.live(100*time.Millisecond, b.held)
		}
		if b.held() != may {
			t.Errorf("sign of %q: held %v", node, b.held())
		}
	}
}

func survivor(t *testing.T, voters ...elect.Node) *bench {
	b := aloneBench(t, voters...)
	b.live(10*time.Second, b.held)
	if !b.held() {
		t.Fatal("no survivor")
	}
	return b
}

// A survivor announces until the router first answers, and never again.
func TestSurvivorAnnouncesOnce(t *testing.T) {
	b := survivor(t, "a", "b", "c")
	for end := b.now.Add(2 * time.Second); b.now < end; {
		b.now = b.m.Deadline()
		eff := b.step(elect.Tick{})
		for _, q := range eff.Questions {
			if q.Announce && b.now > end.Add(-1900*time.Millisecond) {
				t.Fatal("announced again")
			}
		}
		b.answer(eff)
	}
	if !b.held() {
		t.Error("gave up although the router answers")
	}
}

// The gateway's answer to the node's own address proves nothing about the VIP.
func TestSurvivorLivesOnTheVIPsAnswers(t *testing.T) {
	b := survivor(t, "a", "b", "c")
	for end := b.now.Add(time.Second); b.now < end; {
		b.now = b.m.Deadline()
		for range b.step(elect.Tick{}).Questions {
			b.step(elect.Evidence{VIP: vip1, Kind: elect.AskGateway, Sent: b.now})
		}
	}
	if b.held() {
		t.Error("holds a second after the router's last answer to the VIP")
	}
}

// A survivor yields to a sign, and waits longer each time.
func TestSurvivorYieldsLonger(t *testing.T) {
	b := survivor(t, "a", "b", "c")
	var waits []time.Duration
	for range 4 {
		b.step(elect.Sign{VIP: vip1})
		b.step(elect.Bound{VIP: vip1})
		if b.held() {
			t.Fatal("holds beside another")
		}
		since := b.now
		b.live(10*time.Minute, b.held)
		waits = append(waits, b.now.Sub(since))
	}
	if waits[3] < 8*time.Second || waits[3] < 2*waits[1] {
		t.Errorf("waited %v", waits)
	}
}

// A holder by lease does not let go for a survivor, whatever the survivor's epoch: the
// survivor yields.
func TestLeaseStaysBesideASurvivor(t *testing.T) {
	b := newBench(t)
	b.beat("a", 11)
	b.beat("c", 31)
	b.step(elect.Health{Node: "b", SIP: elect.SIPUp})
	b.leased(elect.Granted, "a", "c")
	st := b.m.Status().VIPs[0]
	if st.Holder != "b" {
		t.Fatalf("%+v", st)
	}
	b.beat("c", 31, elect.Hold{VIP: vip1, Epoch: st.Epoch + 8, Survivor: st.Epoch + 7})
	if got := b.m.Status().VIPs[0]; got.Holder != "b" || got.State != elect.Held {
		t.Errorf("a survivor's claim took it away: %+v", got)
	}
}

// leased lets 2 s pass at most, in which the others send heartbeats and answer every ask
// with word.
func (b *bench) leased(word elect.Refusal, others ...elect.Node) {
	inst := map[elect.Node]elect.Instance{"a": 11, "c": 31}
	for range 200 {
		b.now = min(b.now.Add(10*time.Millisecond), b.m.Deadline())
		eff := b.step(elect.Tick{})
		for _, o := range slices.Clone(eff.Send) {
			ans := elect.Answer{Re: o.Seq}
			switch msg := o.Msg.(type) {
			case elect.Ask:
				ans.Prevote, ans.Items = msg.Prevote, []elect.AnswerItem{{VIP: vip1, Epoch: msg.Items[0].Epoch, Refusal: word, Highest: b.highest}}
			case elect.Heartbeat:
				for _, h := range msg.Holds {
					ans.Items = append(ans.Items, elect.AnswerItem{VIP: vip1, Epoch: h.Epoch, Refusal: word, Highest: b.highest})
				}
			}
			if len(ans.Items) > 0 {
				b.hear(o.To, inst[o.To], ans)
			}
		}
		b.answer(eff)
		for _, n := range others {
			l := b.m.Status().Lists
			b.hear(n, inst[n], elect.Heartbeat{Lists: l, Lease: time.Second, SIP: elect.SIPUp})
		}
	}
}

// One other voter that is heard makes no majority of four, but it may know of a holder.
func TestSurvivorIsAlone(t *testing.T) {
	b := aloneBench(t, "a", "b", "c", "d")
	for range 30 {
		b.hear("d", 41, elect.Heartbeat{Lists: b.m.Status().Lists, Lease: time.Second, SIP: elect.SIPUp})
		b.live(200*time.Millisecond, b.held)
	}
	if b.held() {
		t.Error("took the VIP beside another voter")
	}
	b.live(10*time.Second, b.held)
	if !b.held() {
		t.Error("did not take it when alone")
	}
}

// When a survivor's hold becomes a lease, that lease is above every epoch that a majority
// has seen meanwhile, even though the majority's first grants are for a lower one.
func TestLeaseAgainIsAboveAll(t *testing.T) {
	b := survivor(t, "a", "b", "c")
	b.highest = 9
	b.leased(elect.Granted, "a", "c")
	if st := b.m.Status().VIPs[0]; st.State != elect.Held || st.Epoch <= 9 {
		t.Errorf("%s under epoch %d, the others have seen 9", st.State, st.Epoch)
	}
}

// A survivor yields to a lease, whatever its epoch.
func TestSurvivorYieldsToALease(t *testing.T) {
	b := survivor(t, "a", "b", "c")
	b.beat("c", 31, elect.Hold{VIP: vip1, Epoch: 1})
	if b.held() {
		t.Error("holds beside a lease")
	}
}

// If the other of two voters refuses a holder for lack of confidence, the holder does not
// outlive its lease. If it only says to wait, the holder does.
func TestOutliveUnlessRefused(t *testing.T) {
	for word, want := range map[elect.Refusal]elect.VIPState{elect.RefusedNoConfidence: elect.Vacant, elect.RefusedQuiet: elect.Surviving} {
		b := aloneBench(t, "a", "b")
		b.leased(elect.Granted, "a")
		if st := b.m.Status().VIPs[0]; st.State != elect.Held {
			t.Fatalf("before: %s", st.State)
		}
		b.leased(word, "a")
		st := b.m.Status().VIPs[0]
		if st.State == elect.Vacant {
			b.step(elect.Bound{VIP: vip1})
		}
		if st.State != want {
			t.Errorf("refused for %s: %s, want %s", word, st.State, want)
		}
	}
}

// There are only two voters only while both nodes say so.
func TestTwoVotersAreTwo(t *testing.T) {
	for name, theirs := range map[string]elect.VoterList{"two": elect.NewVoterList("a", "b"), "three": abc} {
		b := aloneBench(t, "a", "b")
		b.hear("a", 11, elect.Heartbeat{Lists: elect.Lists{File: theirs, Active: theirs}, Lease: time.Second, SIP: elect.SIPUp})
		b.live(time.Second, b.never)
		b.live(2700*time.Millisecond, b.held)
		if b.held() != (name == "two") {
			t.Errorf("%s voters at the other: held %v within the wait of two", name, b.held())
		}
	}
}

// The relay says something about the VIPs behind the gateway that relays, and about no
// others.
func TestSurvivorBehindTheRelayingGateway(t *testing.T) {
	for _, relayed := range []bool{true, false} {
		b := aloneBench(t, "a", "b", "c")
		cfg := benchConfig()
		cfg.Survivor, cfg.SurvivorAfter, cfg.VIPs[0].Announced, cfg.VIPs[0].Relayed = elect.SurvivorAuto, 3*time.Second, true, relayed
		b.step(elect.Reconfigure{Config: cfg})
		for range 3 { // both are heard, directly and through the gateway, and say that they hear us so
			for n, inst := range map[elect.Node]elect.Instance{"a": 11, "c": 31} {
				beat := elect.Heartbeat{Lists: b.m.Status().Lists, Lease: time.Second, SIP: elect.SIPUp, Relayed: true}
				b.hear(n, inst, beat)
				b.seq[n]++
				b.step(elect.Received{From: n, Instance: inst, Seq: b.seq[n], Msg: beat, Relayed: true})
			}
			b.live(200*time.Millisecond, b.never)
		}
		b.live(20*time.Second, b.held)
		if b.held() != relayed {
			t.Errorf("relayed %v: held %v", relayed, b.held())
		}
	}
}
