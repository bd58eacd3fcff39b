package agent

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sipalive/control"
	"sipalive/elect"
)

// tellAfter are the waits before a timeline is told: the first counts from its last
// change, each other from the telling before. The first telling waits because more marks
// may follow; the others are for peers that missed it.
var tellAfter = []time.Duration{200 * time.Millisecond, time.Second, 4 * time.Second}

// maxTenures is how many tenures of a VIP are remembered: only recent takeovers are told.
const maxTenures = 8

// timelines makes every node show the takeovers of every other node (§8). It tells the
// other nodes of takeovers that are over here, and takes what they tell. All of it runs
// beside the loop.
type timelines struct {
	a     *Agent
	over  chan tale
	heard chan hearsay
	mu    sync.Mutex
	seen  map[elect.VIPID][]tenure // oldest first

	told, taken, refused atomic.Uint64
}

// tale is a timeline whose times count from zero.
type tale struct {
	elect.Timeline
	zero elect.Instant
}

type hearsay struct {
	from elect.Node
	elect.Timeline
}

// tenure is one node's holding of a VIP whose beginning this node has seen. It takes the
// timeline of one takeover, so a node that lies about takeovers must hold the VIP for
// each lie.
type tenure struct {
	node  elect.Node
	epoch elect.Epoch // the takeover's, or one to which it was raised since
	lease time.Duration
	took  elect.Epoch // the takeover's own epoch, as it was told; 0: not told yet
	id    uint64      // in the journal
	size  int
}

func newTimelines(a *Agent) *timelines {
	return &timelines{a: a, over: make(chan tale, 1024), heard: make(chan hearsay, 256), seen: map[elect.VIPID][]tenure{}}
}

// run tells and takes timelines until ctx ends.
func (t *timelines) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { t.tell(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-t.heard:
			t.hear(h)
		}
	}
}

// retold is a tale that is told a few times.
type retold struct {
	tale
	times int // so far
	next  time.Time
}

func (t *timelines) tell(ctx context.Context) {
	type takeover struct {
		vip   elect.VIPID
		epoch elect.Epoch
	}
	open := map[takeover]*retold{}
	for {
		var first takeover
		for key, o := range open {
			if open[first] == nil || o.next.Before(open[first].next) {
				first = key
			}
		}
		var due <-chan time.Time
		if o := open[first]; o != nil {
			due = time.After(time.Until(o.next))
		}
		select {
		case <-ctx.Done():
			return
		case o := <-t.over:
			open[takeover{o.VIP, o.Epoch}] = &retold{tale: o, next: time.Now().Add(tellAfter[0])}
		case <-due:
			o := open[first]
			if !t.say(ctx, o.tale) {
				return
			}
			if o.times++; o.times == len(tellAfter) {
				delete(open, first)
				continue
			}
			o.next = time.Now().Add(tellAfter[o.times])
		}
	}
}

// say has the loop send a tale. It returns false if ctx has ended.
func (t *timelines) say(ctx context.Context, o tale) bool {
	ago, fits := elect.InMicros(t.a.Now().Sub(o.zero))
	if !fits {
		return true // out of date
	}
	o.Ago = ago
	t.a.report(elect.Tell{Timeline: o.Timeline})
	t.told.Add(1)
	return pause(ctx, sharePause)
}

// ended takes a takeover of this node that has an outcome, and takes it again after each
// change.
func (t *timelines) ended(of elect.Transition, zero elect.Instant, ev control.Event) {
	m, fits := timelineOf(of, ev)
	if !fits {
		return
	}
	select {
	case t.over <- tale{m, zero}:
	default: // more at once than a file has VIPs: this node's own journal still has it
	}
}

// held records that a node has been seen to take a VIP: by an Acquired or a HolderSeen.
func (t *timelines) held(seen elect.Transition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.seen[seen.VIP]
	if n := len(all); n > 0 && all[n-1].node == seen.Node && seen.Epoch <= all[n-1].epoch {
		return // seen again
	}
	t.seen[seen.VIP] = append(slices.Clone(all[max(0, len(all)-maxTenures+1):]), tenure{node: seen.Node, epoch: seen.Epoch, lease: seen.Lease})
}

// take takes a message from the network and does not wait.
func (t *timelines) take(from elect.Node, m elect.Timeline) {
	select {
	case t.heard <- hearsay{from, m}:
	default:
		t.refused.Add(1)
	}
}

// hear writes what another node tells of its own takeover into the journal, as one event.
// More about the same takeover goes into the same event. The event's time is by this
// node's clock.
func (t *timelines) hear(h hearsay) {
	l := t.a.names().byID[h.VIP]
	if l == nil || l.left || !sound(h.Timeline) {
		t.refused.Add(1)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	of := tenureOf(t.seen[h.VIP], h)
	if of == nil {
		t.refused.Add(1)
		return
	}
	size := len(h.Marks) + len(h.Actions) + int(h.Left) // a timeline only grows
	if of.took != 0 && size <= of.size {
		return // known
	}
	ev := eventOf(h, l.name, time.Now())
	ev.Lease = control.Millis(of.lease)
	of.size = size
	if of.took == 0 {
		of.took, of.id = h.Epoch, t.a.Journal.Add(ev)
		t.taken.Add(1)
		return
	}
	t.a.Journal.Update(of.id, func(was *control.Event) {
		ev.Time = was.Time
		*was = ev
	})
}

// tenureOf returns the tenure that a timeline belongs to. It is a tenure of the node that
// tells the timeline. The told epoch is the one under which the tenure was taken: at most
// the tenure's epoch, which may have been raised before this node saw it, and above the
// tenure before.
func tenureOf(all []tenure, h hearsay) *tenure {
	before := elect.Epoch(0)
	for i := range all {
		of := &all[i]
		if of.node == h.from && (of.took == h.Epoch || of.took == 0 && before < h.Epoch && h.Epoch <= of.epoch) {
			return of
		}
		before = max(before, of.epoch)
	}
	return nil
}

func (t *timelines) addTimelineCounters(c map[string]uint64) {
	c["timelines_told"], c["timelines_heard"], c["timelines_refused"] = t.told.Load(), t.taken.Load(), t.refused.Load()
}
