package keyring

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	repeatAfter = 100 * time.Millisecond // an unanswered Ask is repeated after this
	// A node that stays silent ends a rotation. At the beginning it ends soon, because
	// nothing has been changed yet. Later the silence may be a restart of the node's
	// agent.
	askPatience  = 3 * time.Second
	stepPatience = 15 * time.Second
)

// Rotation brings a new key to every node and takes the old one away, in three steps.
// Each step begins only after every node has confirmed the one before. A rotation may be
// given up, or its node may die, at any moment: any two nodes can still open each other's
// packets. A later rotation, started on any node and with another new key, removes all
// that is left of it. Times may come from any clock that never stops or goes back.
type Rotation struct {
	nodes  []string // all nodes, this one included
	key    []byte   // the new one
	id     ID
	grace  time.Duration
	random func() uint64

	step  Stage         // the stage that this step brings about; Lacks: the nodes are only asked
	from  time.Duration // when the step began
	asks  map[string]*asked
	lines []Line
	err   error
	done  bool
}

// asked is what is known about one node.
type asked struct {
	question  uint64
	challenge uint64
	public    Public
	view      View
	reached   bool // the node has confirmed the current step
	last      time.Duration
}

// Line says that a node has confirmed a step.
type Line struct {
	Node string
	To   Stage
}

// Out is a question to a node, which may be this node itself.
type Out struct {
	Node string
	Ask  Ask
}

// NewRotation starts a rotation at now. grace is how long a packet may be under way: the
// old key is not dropped until grace after the last node has stopped sealing with it.
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

// Due returns the questions to send now, and the latest time for the next call.
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

// ask returns the question to send; the same one until it is answered. If the node's
// challenge has changed (its agent was restarted), the node answers with the new one.
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

// Hear handles a node's answer.
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
		// Another rotation has changed this node. If this one ignored that, each of the
		// two might drop a key on one node that the other has just made another node seal
		// with.
		r.err = fmt.Errorf("%s: %w", node, errChanged)
	case again:
		a.last = now - repeatAfter // send the order again now
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

// apart returns an error that names two nodes that cannot open each other's packets. The
// cause must be removed before the rotation.
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

// Lines returns the steps confirmed since the last call, in order.
func (r *Rotation) Lines() []Line {
	lines := r.lines
	r.lines = nil
	return lines
}

// New returns the new key's ID.
func (r *Rotation) New() ID { return r.id }

// Changed reports whether a node may have been told to change anything.
func (r *Rotation) Changed() bool { return r.step > Lacks }

// Ended reports whether there is nothing more to do.
func (r *Rotation) Ended() bool { return r.done || r.err != nil }

// Err returns why the rotation failed; nil if it did not.
func (r *Rotation) Err() error { return r.err }
