package keyring

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	repeatAfter = 100 * time.Millisecond // an Ask without an answer is repeated
	// Silence of a node ends a rotation: at its beginning soon, nothing is changed
	// yet; later it may be a restart of its agent.
	askPatience  = 3 * time.Second
	stepPatience = 15 * time.Second
)

// Rotation brings a new key to every node and takes the old one away, in three steps,
// each only once every node has confirmed the one before. It may be given up, or
// die, at any moment: every two nodes then open each other's packets. Another one, of
// any node and with another new key, leaves nothing of it. Times are of any clock that
// goes on.
type Rotation struct {
	nodes  []string // all, this one included
	key    []byte   // the new one
	id     ID
	grace  time.Duration
	random func() uint64

	step  Stage         // what is being brought about; Lacks: the nodes are asked
	from  time.Duration // since when
	asks  map[string]*asked
	lines []Line
	err   error
	done  bool
}

// asked is what is known of one node.
type asked struct {
	question  uint64
	challenge uint64
	public    Public
	view      View
	reached   bool // the step
	last      time.Duration
}

// Line is one node's step.
type Line struct {
	Node string
	To   Stage
}

// Out is a question to a node, which may be this one.
type Out struct {
	Node string
	Ask  Ask
}

// NewRotation begins at now. grace is how long a packet may be under way: the old key
// is dropped no sooner after the last node has ceased to seal with it.
func NewRotation(now time.Duration, nodes []string, key []byte, grace time.Duration, random func() uint64) *Rotation {
	r := &Rotation{nodes: nodes, key: key, id: IDOf(key), grace: grace, random: random, asks: map[string]*asked{}}
	for _, n := range nodes {
		r.asks[n] = &asked{}
	}
	r.begin(now, Lacks)
	return r
}

func (r *Rotation) begin(now time.Duration, step Stage) {
	r.step, r.from = step, now
	if step == Alone {
		r.from += r.grace
	}
	for _, n := range r.nodes {
		a := r.asks[n]
		a.question, a.reached, a.last = r.random(), false, r.from-repeatAfter
	}
}

// Due is what to send now, and when to ask again at the latest.
func (r *Rotation) Due(now time.Duration) (out []Out, next time.Duration) {
	if r.Ended() {
		return nil, now
	}
	next = r.from + r.patience()
	if now >= next {
		r.err = r.silent()
		return nil, now
	}
	for _, n := range r.nodes {
		a := r.asks[n]
		if a.reached {
			continue
		}
		if now-a.last >= repeatAfter {
			a.last = now
			q, err := r.ask(a)
			if err != nil {
				r.err = fmt.Errorf("%s: %w", n, err)
				return nil, now
			}
			out = append(out, Out{n, q})
		}
		next = min(next, a.last+repeatAfter)
	}
	return out, next
}

func (r *Rotation) patience() time.Duration {
	if r.step == Lacks {
		return askPatience
	}
	return stepPatience
}

// ask asks the same until it is answered. An order whose challenge is no longer the
// node's (its agent was restarted) is answered with the one that is.
func (r *Rotation) ask(a *asked) (q Ask, err error) {
	q = Ask{Question: a.question, Try: r.step == Lacks}
	if r.step != Lacks {
		q.Challenge = a.challenge
		q.Order = &Order{From: a.view.Digest(), To: r.step, New: r.id}
		if r.step == Accepts {
			q.Order.Key, err = Wrap(r.key, a.public, r.random)
		}
	}
	return q, err
}

// Hear takes a node's answer.
func (r *Rotation) Hear(now time.Duration, node string, t Tell) {
	a := r.asks[node]
	if a == nil || r.Ended() || t.Question != a.question || a.reached {
		return
	}
	again := a.challenge != t.Challenge
	a.challenge, a.public = t.Challenge, t.Public
	switch is := t.View.Digest(); {
	case t.Err != "":
		r.err = fmt.Errorf("%s: %s", node, t.Err)
	case len(t.View) == 0:
		r.err = fmt.Errorf("%s: tells of no key", node)
	case r.step == Lacks && len(t.View) >= MaxKeys:
		r.err = fmt.Errorf("%s: has %d keys or more already; nothing was changed (leave in its key file those that are in use, and sipalive reload)", node, MaxKeys)
	case r.step == Lacks:
		a.view, a.reached = t.View, true
	case is == a.view.after(r.step, r.id).Digest():
		a.view, a.reached = t.View, true
		r.lines = append(r.lines, Line{node, r.step})
	case is != a.view.Digest():
		// Another rotation has been here: if this one took no notice, each might drop a
		// key on one node that the other has just made another node seal with.
		r.err = fmt.Errorf("%s: %w", node, errChanged)
	case again:
		a.last = now - repeatAfter // the order is due
	}
	if r.err == nil && r.all() {
		r.advance(now)
	}
}

func (r *Rotation) all() bool {
	for _, a := range r.asks {
		if !a.reached {
			return false
		}
	}
	return true
}

func (r *Rotation) advance(now time.Duration) {
	switch r.step {
	case Lacks:
		if r.err = r.apart(); r.err == nil {
			r.begin(now, Accepts)
		}
	case Alone:
		r.done = true
	default:
		r.begin(now, r.step+1)
	}
}

// apart finds two nodes that do not open each other's packets: what keeps them apart
// has to end first.
func (r *Rotation) apart() error {
	for _, n := range r.nodes {
		for _, other := range r.nodes {
			if !slices.Contains(r.asks[other].view, r.asks[n].view[0]) {
				return fmt.Errorf("%s does not accept the key that %s seals with (give both the same key file, and sipalive reload)", other, n)
			}
		}
	}
	return nil
}

func (r *Rotation) silent() error {
	var missing []string
	for _, n := range r.nodes {
		if !r.asks[n].reached {
			missing = append(missing, n)
		}
	}
	names := strings.Join(missing, ", ")
	if r.step == Lacks {
		return fmt.Errorf("%s: no answer within %s; nothing was changed (start the agent there, or go on --without it, and give it the key file by hand)", names, askPatience)
	}
	return fmt.Errorf("%s: did not confirm within %s that it %s %s", names, stepPatience, r.step, r.id)
}

// Lines are the steps that were confirmed since the last call, in their order.
func (r *Rotation) Lines() []Line {
	lines := r.lines
	r.lines = nil
	return lines
}

// New is the new key's name.
func (r *Rotation) New() ID { return r.id }

// Changed reports whether a node may have been told to change anything.
func (r *Rotation) Changed() bool { return r.step > Lacks }

// Ended reports whether there is nothing more to do.
func (r *Rotation) Ended() bool { return r.done || r.err != nil }

// Err is why it ended before its end; nil: it did not.
func (r *Rotation) Err() error { return r.err }
