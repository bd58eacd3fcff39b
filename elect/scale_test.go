package elect_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sipalive/elect"
)

// crowd is one machine among many nodes at rest. The first five nodes are the voters. The
// machine is the last node; it holds the VIPs that it is given.
type crowd struct {
	m      *elect.Machine
	cfg    elect.Config
	now    elect.Instant
	seq    elect.Seq
	voters elect.VoterList
	beats  []elect.Message // the others' heartbeats, by node
}

func newCrowd(tb testing.TB, nodes, vips, held int) *crowd {
	c := &crowd{now: 1e12}
	c.cfg = elect.Config{Heartbeat: 200 * time.Millisecond, Lease: time.Second, Settle: time.Second, Stagger: 50 * time.Millisecond,
		HoldDown: time.Second, Exclude: time.Minute, PrepareTimeout: time.Second, Survivor: elect.SurvivorAuto, SurvivorAfter: 3 * time.Second}
	var names []elect.Node
	for i := range nodes {
		n := elect.NodeConfig{Name: elect.Node(fmt.Sprintf("pbx%d", i+1)), Voter: i < 5, Holder: true}
		c.cfg.Nodes = append(c.cfg.Nodes, n)
		if n.Voter {
			names = append(names, n.Name)
		}
	}
	c.cfg.Self = c.cfg.Nodes[nodes-1].Name
	c.voters = elect.NewVoterList(names...)
	for i := range vips {
		id := elect.VIPID(fmt.Sprintf("192.0.2.%d", i))
		c.cfg.VIPs = append(c.cfg.VIPs, elect.VIPConfig{ID: id, Name: string(id), Weight: 1, Announced: true, Relayed: true})
	}
	var have []elect.HeldVIP
	for _, v := range c.cfg.VIPs[:held] {
		have = append(have, elect.HeldVIP{VIP: v.ID, Epoch: 5, Until: c.now.Add(time.Minute), Since: c.now})
	}
	m, err := elect.New(c.cfg, elect.Restored{Durable: &elect.Durable{Active: c.voters, LongestLease: time.Second}, Runtime: &elect.Runtime{Instance: 21}, Held: have},
		21, c.now, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		tb.Fatal(err)
	}
	c.m = m
	c.speak(held)
	for _, n := range c.cfg.Nodes {
		m.Step(c.now, elect.Health{Node: n.Name, SIP: elect.SIPUp})
	}
	for range 20 {
		c.round()
	}
	for i, w := range m.Step(c.now, elect.Tick{}).Want {
		if w.Hold != (i < held) {
			tb.Fatalf("%s held: %v", w.VIP, w.Hold)
		}
	}
	return c
}

// speak makes the others' heartbeats. All is well, and the first node holds the VIPs that
// the machine does not hold.
func (c *crowd) speak(held int) {
	for i := range len(c.cfg.Nodes) - 1 {
		b := elect.Heartbeat{Lists: elect.Lists{File: c.voters, Active: c.voters}, Lease: c.cfg.Lease, SIP: elect.SIPUp, Rest: elect.SIPUp, AllReach: true, Relayed: true}
		for j, v := range c.cfg.VIPs {
			if i == 0 && j >= held {
				b.Holds = append(b.Holds, elect.Hold{VIP: v.ID, Epoch: 7, Checked: true, Verified: true, Ever: true})
			}
		}
		c.beats = append(c.beats, b)
	}
}

// round is one heartbeat of every other node, spread evenly over the interval.
func (c *crowd) round() {
	for i := range c.beats {
		c.pass(c.cfg.Heartbeat / time.Duration(len(c.beats)))
		c.answer(c.hear(i))
	}
}

func (c *crowd) hear(i int) elect.Effects {
	c.seq++
	return c.m.Step(c.now, elect.Received{From: c.cfg.Nodes[i].Name, Instance: 11, Seq: c.seq, Msg: c.beats[i]})
}

// pass lets time go by. The voters answer at once.
func (c *crowd) pass(d time.Duration) {
	for end := c.now.Add(d); c.now < end; {
		if c.now = min(end, c.m.Deadline()); c.now < end {
			c.answer(c.m.Step(c.now, elect.Tick{}))
		}
	}
}

func (c *crowd) answer(eff elect.Effects) {
	var answers []elect.Received
	for _, o := range eff.Send {
		h, beat := o.Msg.(elect.Heartbeat)
		if !beat || o.Relay || !c.voters.Has(o.To) || len(h.Holds) == 0 {
			continue
		}
		a := elect.Answer{Re: o.Seq}
		for _, hold := range h.Holds {
			a.Items = append(a.Items, elect.AnswerItem{VIP: hold.VIP, Epoch: hold.Epoch})
		}
		answers = append(answers, elect.Received{From: o.To, Instance: 11, Msg: a})
	}
	for _, r := range answers {
		c.seq++
		r.Seq = c.seq
		c.m.Step(c.now, r)
	}
}

// BenchmarkCrowd measures what one node's machine computes in a second of a cluster at
// rest, by the number of nodes. It has to grow as that number does, not as its square.
func BenchmarkCrowd(b *testing.B) {
	for _, nodes := range []int{3, 8, 16, 32, 64, 250, 1000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			c := newCrowd(b, nodes, 16, min(nodes, 4))
			b.ReportAllocs()
			for b.Loop() {
				for range 5 {
					c.round()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*5*(nodes-1)), "ns/beat")
		})
	}
}

// TestStepsStayCheap: among 250 nodes a peer's heartbeat costs no more than a few times
// what it costs among 16. When each step asked every node about every node, it was 100
// times as much among 64 nodes already.
func TestStepsStayCheap(t *testing.T) {
	perBeat := func(nodes int) time.Duration {
		c := newCrowd(t, nodes, 4, 2)
		best := time.Hour
		for range 20 {
			began := time.Now()
			c.round()
			best = min(best, time.Since(began)/time.Duration(nodes-1))
		}
		return best
	}
	few, many := perBeat(16), perBeat(250)
	t.Logf("%v per heartbeat among 16 nodes, %v among 250", few, many)
	if many > 10*few {
		t.Errorf("a heartbeat costs %v among 250 nodes, %v among 16", many, few)
	}
}

// TestHeartbeatAllocates limits the allocations of a heartbeat that is heard and of one
// that is sent.
func TestHeartbeatAllocates(t *testing.T) {
	c := newCrowd(t, 3, 2, 1)
	if n := testing.AllocsPerRun(100, func() { c.now = c.now.Add(time.Millisecond); c.hear(1) }); n > 2 {
		t.Errorf("%v allocations for a heartbeat that is heard", n)
	}
	// An interval: two heartbeats are heard, one of them a holder's, and one is sent. A
	// holder also hears its voters' answers. What the test itself allocates counts, too.
	for held, most := range []float64{6, 14} {
		c := newCrowd(t, 3, 2, held)
		n := testing.AllocsPerRun(100, c.round)
		t.Logf("%v allocations per heartbeat interval with %d VIPs held", n, held)
		if n > most {
			t.Errorf("%v allocations per heartbeat interval with %d VIPs held, at most %v", n, held, most)
		}
	}
}
