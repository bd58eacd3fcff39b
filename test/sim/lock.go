package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sipalive/elect"
)

// client is a client of a lock on a node: the agent's socket, and the process behind it
// that runs a command under the lock. The command ends when the last lease that the
// client heard of ends, whatever happens to the agent.
type client struct {
	wants   bool // waits for the lock, or runs under it
	runs    bool
	keep    time.Duration
	kept    bool // it was told that a majority keeps the lock for it
	until   Time // of its lease
	owed    bool // the machine waits to hear that the command is over
	epoch   elect.Epoch
	pending bool // the state directory names a lock that is kept for this node
}

// guard is a lock that is kept for one node, as the judge knows it.
type guard struct {
	node  *Node
	until Time
}

func (w *World) isLock(i int) bool { return w.VIPs[i].Lock }

// WantLock starts a client. It does nothing if there is one already, if the agent does
// not run or is stopping, or if a lock is still kept for this node.
func (n *Node) WantLock(i int, keep time.Duration) {
	c := &n.clients[i]
	if n.Machine == nil || n.stopping || c.wants || c.pending {
		return
	}
	*c = client{wants: true, keep: keep, owed: c.owed}
	n.w.tracef("%s wants %s, keep %s", n, n.w.VIPs[i].ID, keep)
	n.Step(elect.LockWanted{VIP: n.w.VIPs[i].ID, Keep: keep})
}

// EndLock ends the client properly: first its command, then its hold on the lock.
func (n *Node) EndLock(i int) {
	c := &n.clients[i]
	if !c.wants {
		return
	}
	n.endCommand(i)
	if c.kept {
		n.w.Judge.guards[i] = guard{}
	}
	*c = client{owed: c.owed}
	n.w.tracef("%s is done with %s", n, n.w.VIPs[i].ID)
	n.Step(elect.LockDone{VIP: n.w.VIPs[i].ID})
}

// LeaveLock kills the client and with it its command.
func (n *Node) LeaveLock(i int) {
	if c := &n.clients[i]; c.wants {
		n.endCommand(i)
		n.w.tracef("%s leaves %s", n, n.w.VIPs[i].ID)
		n.left(i)
		n.Step(elect.LockLeft{VIP: n.w.VIPs[i].ID})
	}
}

// left notes that a client is gone without ending its lock, perhaps with its whole node.
func (n *Node) left(i int) {
	c := &n.clients[i]
	pending := c.kept || c.pending
	if c.kept {
		n.w.Judge.Kept++
		n.w.Judge.guards[i] = n.guardFrom(i, min(n.w.Now, c.until))
		n.w.At(time.Duration(n.w.Rand.Int64N(int64(2*c.keep))), func() { n.OverLock(i) })
	}
	*c = client{owed: c.owed, pending: pending, epoch: c.epoch, keep: c.keep}
}

// OverLock ends what is kept for this node. If the agent does not run, it tries again
// later.
func (n *Node) OverLock(i int) {
	c := &n.clients[i]
	if !c.pending {
		return
	}
	if n.Machine == nil || n.paused {
		n.w.At(time.Second, func() { n.OverLock(i) })
		return
	}
	c.pending = false
	if n.w.Judge.guards[i].node == n {
		n.w.Judge.guards[i] = guard{}
	}
	n.w.tracef("%s need not keep %s", n, n.w.VIPs[i].ID)
	n.Step(elect.KeepOver{VIP: n.w.VIPs[i].ID, Epoch: c.epoch})
}

func (n *Node) endCommand(i int) {
	if n.bound[i].on {
		n.bound[i] = bound{}
		n.w.Judge.unbound(n, i)
	}
}

func (w *World) longest() (d time.Duration) {
	for _, n := range w.Nodes {
		d = max(d, n.Config.Lease)
	}
	return d
}

// bindLocks does the agent's part: it tells the clients of their leases, and the machine
// when a command is over.
func (n *Node) bindLocks(locks []elect.HeldLock, stored bool) {
	for _, l := range locks {
		i := n.w.vipIndex(l.VIP)
		b, c := &n.bound[i], &n.clients[i]
		switch {
		case l.Hold:
			c.owed = true
			if stored {
				n.runLocked(i, l)
			}
		case c.owed:
			c.owed = false
			if c.runs && b.on {
				n.loseLock(i)
			} else {
				n.later(bindTook, elect.Bound{VIP: l.VIP})
			}
		}
	}
}

func (n *Node) runLocked(i int, l elect.HeldLock) {
	b, c := &n.bound[i], &n.clients[i]
	if b.on && n.local() >= b.until { // a command that still ran has ended itself with its lease
		n.endCommand(i)
		if c.runs {
			n.left(i)
			n.later(bindTook, elect.LockLeft{VIP: l.VIP})
		}
	}
	if !c.wants {
		return
	}
	if b.on && !c.runs {
		n.w.Judge.violate("%s obtained by %s under epoch %d while its command of epoch %d runs", l.VIP, n, l.Epoch, b.epoch)
	}
	was := n.effective(i)
	grew := l.Until > b.until || !b.on
	before := *b
	if !b.on {
		b.on, b.since = true, n.local()
	}
	b.until, b.epoch = l.Until, l.Epoch
	c.runs, c.epoch, c.until = true, l.Epoch, n.global(l.Until)
	n.w.Judge.holds(n, i, was, grew, before)
	if c.keep > 0 && l.Kept && !c.kept {
		c.kept = true
		n.w.tracef("%s has %s kept", n, l.VIP)
	}
	if c.kept {
		n.w.Judge.guards[i] = n.guardFrom(i, c.until)
	}
}

// guardFrom returns how long a lock is kept for this node, if its last lease ends at
// last. A voter counts from the last message that it heard, which may be some leases
// older than last.
func (n *Node) guardFrom(i int, last Time) guard {
	keep := n.clients[i].keep
	return guard{n, last + Time(keep-keep/500-4*n.w.longest())}
}

// loseLock tells the client, which kills its command; that takes a moment.
func (n *Node) loseLock(i int) {
	life, epoch := n.life, n.bound[i].epoch
	n.w.At(time.Duration(n.w.Rand.Int64N(int64(5*time.Millisecond))), func() {
		if b := &n.bound[i]; b.on && b.epoch == epoch {
			n.endCommand(i)
		}
		if n.life != life {
			return
		}
		n.left(i)
		n.Step(elect.LockLeft{VIP: n.w.VIPs[i].ID})
		n.Step(elect.Bound{VIP: n.w.VIPs[i].ID})
	})
}

// deserted handles the death of an agent. Its clients kill their commands before the
// lease ends; nobody waits for that.
func (n *Node) deserted() {
	for i := range n.clients {
		if c := &n.clients[i]; n.w.isLock(i) {
			n.left(i)
			c.owed = false
		}
	}
}

// Locks is a run in which clients want, use, lose and keep locks while everything fails
// that can fail.
type Locks struct{ Scenario }

// NewLocks draws a run from a seed.
func NewLocks(seed uint64) Locks {
	s := NewScenario(seed, 0, 5*time.Minute)
	for i := range 1 + seed%2 {
		name := fmt.Sprintf("lock%d", i+1)
		s.Config.VIPs = append(s.Config.VIPs, elect.VIPConfig{ID: elect.LockID(name), Name: name, Role: true, Lock: true})
	}
	return Locks{s}
}

// maxKeep is the longest time for which a lock is kept: several leases, but less than the
// end of a run waits.
const maxKeep = 40 * time.Second

// Run runs the faults and heals everything. At the end every node must obtain every lock.
func (s Locks) Run(trace func(string)) Result {
	w := s.World()
	w.Trace = trace
	w.tracef("%s", s.Scenario)
	w.Start()
	for _, f := range s.Faults {
		w.Apply(f)
	}
	r := rand.New(rand.NewPCG(s.Seed, 0x10c))
	w.useLocks(r, s.Duration)
	stop := func() bool { return len(w.Judge.Violations) > 0 }
	if !w.RunUntil(s.Duration+time.Second, stop) {
		w.Heal()
		if !w.RunUntil(s.Bound()+s.Config.Exclude+3*maxKeep, stop) {
			s.takeTurns(w)
		}
	}
	return Result{Violations: w.Judge.Violations, Simulated: time.Duration(w.Now), Moves: w.Judge.Moves, Leases: w.Judge.Unshared,
		Obtained: w.Judge.Obtained, Kept: w.Judge.Kept, Steps: w.Steps}
}

// takeTurns lets all nodes want a lock at once. Each node that obtains it gives it back,
// so every node must get it in turn.
func (s Locks) takeTurns(w *World) {
	for i := range w.VIPs {
		if !w.isLock(i) {
			continue
		}
		for _, n := range w.Nodes {
			n.EndLock(i)
			n.OverLock(i)
		}
		for _, n := range w.Nodes {
			n.WantLock(i, 0)
		}
		had := map[*Node]bool{}
		all := w.RunUntil(time.Duration(len(w.Nodes))*s.Bound(), func() bool {
			for _, n := range w.Nodes {
				if n.clients[i].runs && n.effective(i) {
					had[n] = true
					n.EndLock(i)
				}
			}
			return len(had) == len(w.Nodes) || len(w.Judge.Violations) > 0
		})
		if !all {
			w.Judge.violate("%s: only %d of %d nodes obtained it in turn", w.VIPs[i].ID, len(had), len(w.Nodes))
		}
	}
}

// useLocks lets clients come and go at random until the given time.
func (w *World) useLocks(r *rand.Rand, until time.Duration) {
	pause := func() time.Duration { return time.Duration(r.Int64N(int64(3 * w.longest()))) }
	var act func()
	act = func() {
		if time.Duration(w.Now) > until {
			return
		}
		for i := range w.VIPs {
			if w.isLock(i) {
				w.useLock(r, w.Nodes[r.IntN(len(w.Nodes))], i)
			}
		}
		w.At(pause(), act)
	}
	w.At(pause(), act)
}

func (w *World) useLock(r *rand.Rand, n *Node, i int) {
	c, what := &n.clients[i], r.IntN(10)
	switch {
	case !c.wants:
		keep := time.Duration(0)
		if what < 4 {
			keep = time.Duration(r.Int64N(int64(maxKeep))) + time.Second
		}
		n.WantLock(i, keep)
	case c.kept && what < 4:
		n.PowerOff()
		w.At(time.Duration(r.Int64N(int64(c.keep+time.Second))), func() {
			if n.Off {
				n.PowerOn()
			}
		})
	case what < 6:
		n.EndLock(i)
	case what < 8:
		n.LeaveLock(i)
	}
}
