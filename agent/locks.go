package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sipalive/control"
	"sipalive/elect"
)

// locks contains the clients that hold or wait for locks on this node (§4.10). Its fields
// belong to the loop; a client's own goroutine only asks the loop to change them.
//
// Per lock, one client at a time asks the cluster, in the order in which they came. The
// lock is released when the client says that its command is over. If the client says
// nothing, the lock is released when the last lease that the client was told of has
// ended: by then it has killed its command.
type locks struct {
	a        *Agent
	byID     map[elect.VIPID]*lockQueue
	clients  map[uint64]*lockClient
	last     uint64 // the last client id given
	kept     map[string]*keptLock
	writing  chan struct{}   // closed when the newest record is written
	watching context.Context // ctx of run; nil before run
}

// lockQueue is one lock and the clients that want it here.
type lockQueue struct {
	id      elect.VIPID
	name    string
	waiting []*lockClient
	asking  *lockClient // the client for whom the machine asks
	holding *lockClient // the client that uses the lease which the machine holds; nil: no client
	held    bool        // by the machine
	owed    bool        // the machine waits to hear that the client's command is over
}

// lockClient is one `sipalive lock`.
type lockClient struct {
	id    uint64
	req   control.LockRequest
	user  string // the user that runs req.Until
	until elect.Instant
	over  bool // the client said so, or no command ever ran
	gone  bool
	kept  *keptLock
	level control.LockLevel
	wake  chan struct{}
}

func newLocks(a *Agent) *locks {
	return &locks{a: a, byID: map[elect.VIPID]*lockQueue{}, clients: map[uint64]*lockClient{}, kept: map[string]*keptLock{}}
}

// Lock answers `sipalive lock`.
func (a *Agent) Lock(ctx context.Context, r control.LockRequest, uid uint32, tell func(control.LockLevel)) error {
	c := &lockClient{req: r, over: true, wake: make(chan struct{}, 1)}
	if r.Keep != 0 {
		var err error
		if c.user, err = userName(uid); err != nil {
			return fmt.Errorf("lock %s --until: %w", r.Name, err)
		}
	}
	if err := a.ask(ctx, func() { a.locks.add(c) }); err != nil {
		return err
	}
	defer func() {
		// However long the loop takes to hear it: it renews the lock of a client that it
		// does not know to be gone.
		_ = a.ask(context.WithoutCancel(ctx), func() { a.locks.hungUp(c) })
	}()
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil
		case <-a.ended:
			return errEnded
		}
		var now control.LockLevel
		if err := a.ask(ctx, func() { now = c.level }); err != nil {
			return err
		}
		tell(now)
	}
}

// EndLock takes the client's word that its command is over.
func (a *Agent) EndLock(ctx context.Context, end control.LockEnd) error {
	known := false
	err := a.ask(ctx, func() {
		c := a.locks.clients[end.ID]
		if known = c != nil; known {
			a.locks.end(c, end.Keep)
		}
	})
	if err == nil && !known {
		err = fmt.Errorf("lock: no client %d here", end.ID)
	}
	return err
}

func (k *locks) queue(id elect.VIPID, name string) *lockQueue {
	q := k.byID[id]
	if q == nil {
		q = &lockQueue{id: id, name: name}
		k.byID[id] = q
	}
	return q
}

func (k *locks) add(c *lockClient) {
	k.last++
	c.id = k.last
	c.level.ID = c.id
	k.clients[c.id] = c
	q := k.queue(elect.LockID(c.req.Name), c.req.Name)
	q.waiting = append(q.waiting, c)
	k.next(q)
	k.explain(q)
}

// next has the machine ask for the first client in the queue. It does not if the machine
// asks for a client already, or if the lock is kept until this node has recovered.
func (k *locks) next(q *lockQueue) {
	if q.asking != nil || k.kept[q.name] != nil {
		return
	}
	if len(q.waiting) == 0 {
		if !q.held && !q.owed && k.byID[q.id] == q {
			delete(k.byID, q.id)
		}
		return
	}
	q.asking, q.waiting = q.waiting[0], q.waiting[1:]
	k.a.step(elect.LockWanted{VIP: q.id, Keep: time.Duration(q.asking.req.Keep)})
}

// tell gives a client its newest level, in place of one that it has not read yet.
func (c *lockClient) tell(change func(*control.LockLevel)) {
	before := c.level
	change(&c.level)
	if c.level == before {
		return
	}
	poke(c.wake)
}

// want takes the level of every lock from the machine.
func (k *locks) want(level []elect.HeldLock, stored bool) {
	for _, l := range level {
		q := k.byID[l.VIP]
		switch {
		case q == nil && l.Hold:
			name, _ := l.VIP.Lock()
			q = k.queue(l.VIP, name) // no client's: the lease is left to end
			fallthrough
		case q != nil && l.Hold:
			if !q.held {
				q.held, q.owed, q.holding = true, true, q.asking
			}
			if stored && q.holding != nil && !q.holding.gone {
				k.give(q, q.holding, l)
			}
		case q != nil && q.held:
			q.held = false
			if c := q.holding; c != nil && !c.over {
				c.tell(func(l *control.LockLevel) { l.Lost = "the lease is lost" })
				time.AfterFunc(time.Duration(c.until-k.a.Now()), func() { k.later(func() { k.settle(q) }) })
			}
			k.settle(q)
		}
		if q != nil {
			k.explain(q)
		}
	}
}

// give tells the client of a lease or of its renewal.
func (k *locks) give(q *lockQueue, c *lockClient, l elect.HeldLock) {
	now := k.a.Now()
	switch {
	case c.level.Lost != "":
		return
	case !c.over && now >= c.until:
		// By now it has killed its command, though the machine was granted more.
		c.tell(func(l *control.LockLevel) { l.Lost = "the agent was too late to renew the lease" })
		return
	case c.req.Keep != 0 && !k.ready(q, c, l):
		return
	}
	c.over, c.until = false, l.Until
	margin := elect.Margin(k.a.Config().Timing.Lease)
	c.tell(func(v *control.LockLevel) {
		*v = control.LockLevel{ID: c.id, Node: k.a.Self.Name, Epoch: uint64(l.Epoch), Until: int64(l.Until), Margin: margin}
	})
}

// end takes a client's word that its command is over.
func (k *locks) end(c *lockClient, keep bool) {
	c.over = true
	k.leave(c, keep)
}

// hungUp handles a client that is gone without a word. If the client was told of a lease,
// its command may still run, at most until the end of that lease.
func (k *locks) hungUp(c *lockClient) {
	if k.clients[c.id] != nil {
		k.leave(c, !c.over)
	}
}

func (k *locks) leave(c *lockClient, keep bool) {
	delete(k.clients, c.id)
	c.gone = true
	q := k.queue(elect.LockID(c.req.Name), c.req.Name)
	q.waiting = slices.DeleteFunc(q.waiting, func(w *lockClient) bool { return w == c })
	if q.asking == c {
		q.asking = nil
		ev := elect.Event(elect.LockDone{VIP: q.id})
		if !c.over || keep && c.kept != nil {
			ev = elect.LockLeft{VIP: q.id}
		}
		k.a.step(ev)
	}
	if c.kept != nil {
		k.parted(c.kept, keep)
	}
	k.settle(q)
	k.next(q)
}

// settle tells the machine that the command is over, as soon as that is true, if the
// machine waits for it.
func (k *locks) settle(q *lockQueue) {
	c := q.holding
	if q.held || !q.owed || c != nil && !c.over && k.a.Now() < c.until {
		return
	}
	q.owed, q.holding = false, nil
	lost := c != nil && q.asking == c && !c.over
	switch {
	case lost:
		q.asking = nil
	case c != nil && c.kept != nil && !c.gone: // no command ever ran: the lock is asked for again
		k.forget(c.kept)
		c.kept = nil
	}
	k.later(func() {
		if lost {
			k.a.step(elect.LockLeft{VIP: q.id})
		}
		k.a.step(elect.Bound{VIP: q.id})
		k.next(q)
	})
}

// later has the loop run f after the present step.
func (k *locks) later(f func()) {
	go func() { _ = k.a.ask(context.Background(), f) }() // fails only when the loop has ended
}

// explain tells each waiting client why it waits.
func (k *locks) explain(q *lockQueue) {
	if len(q.waiting) == 0 && (q.asking == nil || q.asking.level.Epoch != 0) {
		return
	}
	why := "asking for it"
	for _, s := range k.a.Machine.Locks() {
		if s.ID != q.id {
			continue
		}
		switch {
		case s.KeptFor != "" && s.KeptFor != elect.Node(k.a.Self.Name):
			why = fmt.Sprintf("kept for %s, which has to recover first", s.KeptFor)
		case s.Holder != "" && s.Holder != elect.Node(k.a.Self.Name):
			why = fmt.Sprintf("held by %s", s.Holder)
		}
	}
	switch r := k.kept[q.name]; {
	case r != nil && r.recorded:
		why = "kept until this node has recovered: " + r.Until
	case r != nil && r.refused != "":
		why = "this node cannot record that it is kept: " + r.refused
	}
	say := func(c *lockClient, why string) { c.tell(func(l *control.LockLevel) { l.Waiting = why }) }
	if c := q.asking; c != nil && c.level.Epoch == 0 {
		say(c, why)
	}
	for _, c := range q.waiting {
		if q.held || q.asking != nil && q.asking.level.Epoch != 0 {
			why = "held by another client of this node"
		}
		say(c, why)
	}
}

// status returns what `sipalive status` shows of the locks in use.
func (k *locks) status() (all []control.LockStatus) {
	for _, s := range k.a.Machine.Locks() {
		name, _ := s.ID.Lock()
		v := control.LockStatus{Name: name, Holder: string(s.Holder), Epoch: uint64(s.Epoch), KeptFor: string(s.KeptFor)}
		if s.Holder != "" {
			v.Since.Time = time.Now().Add(time.Duration(s.Since - k.a.Now()))
		}
		if s.KeptFor != "" {
			v.KeptForMillis = control.Millis(time.Duration(s.KeptUntil - k.a.Now()))
		}
		if q := k.byID[s.ID]; q != nil {
			v.Waiting = len(q.waiting)
			if q.asking != nil && q.asking != q.holding {
				v.Waiting++
			}
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b control.LockStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}
