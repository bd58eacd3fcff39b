package keyring

import (
	"bytes"
	"cmp"
	"container/heap"
	"crypto/ecdh"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const grace = time.Second

// twoAtOnce is the number of runs of TestTwoAtOnce. The figure needs to be high enough:
// when a rotation ignored the other one, the 19th run was the first to drop a key that
// the other rotation had just made a node seal with.
var twoAtOnce = flag.Int("keyring.two", 150, "runs of two rotations at once")

// underWay is the longest that a packet of the simulated network takes.
const underWay = 900 * time.Millisecond

// world is a cluster in virtual time. Its nodes keep their rings in files and send each
// other sealed packets all the time.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	now   time.Duration
	queue agenda
	order int
	keys  byte
	nodes []*machine
	loss  int // in percent
	runs  map[string]*Rotation
}

type due struct {
	at    time.Duration
	order int
	do    func()
}

// machine is a node. A restart finds its file.
type machine struct {
	name   string
	file   Ring
	keeper *Keeper
	down   bool
	crash  func(Ring) bool // whether the agent dies once the ring is in its file
	away   time.Duration   // time until it is back
}

func newWorld(t *testing.T, seed uint64, rings ...Ring) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), runs: map[string]*Rotation{}}
	for i, r := range rings {
		m := &machine{name: fmt.Sprint("pbx", i+1), file: r, away: 300 * time.Millisecond}
		m.keeper = NewKeeper(r, w.rnd.Uint64)
		w.nodes = append(w.nodes, m)
	}
	w.chat()
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, due{w.now + d, w.order, do})
}

// run lets time pass: for long, or until the rotations have ended and every packet under
// way has arrived.
func (w *world) run(long time.Duration, until ...*Rotation) {
	for end := w.now + long; w.queue[0].at <= end; {
		next := heap.Pop(&w.queue).(due)
		w.now = next.at
		next.do()
		if len(until) > 0 && !slices.ContainsFunc(until, func(r *Rotation) bool { return !r.Ended() }) {
			until, end = nil, w.now+underWay
		}
	}
}

// agenda is a heap of events that are due.
type agenda []due

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(due)) }
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// delay returns a packet's time under way: mostly short, sometimes long.
func (w *world) delay() time.Duration {
	if w.rnd.IntN(20) == 0 {
		return time.Duration(w.rnd.Int64N(int64(underWay)))
	}
	return time.Duration(w.rnd.Int64N(int64(2 * time.Millisecond)))
}

func (w *world) lost() bool { return w.rnd.IntN(100) < w.loss }

// chat makes every node send a packet to every other one each 20 ms. Every node that is
// up when a packet arrives must be able to open it.
func (w *world) chat() {
	for _, from := range w.nodes {
		if from.down {
			continue
		}
		sealed := from.keeper.Ring()[0]
		for _, to := range w.nodes {
			if to == from {
				continue
			}
			w.after(w.delay(), func() {
				if !to.down && !slices.ContainsFunc(to.keeper.Ring(), func(k []byte) bool { return bytes.Equal(k, sealed) }) {
					w.t.Errorf("%v: %s cannot open a packet of %s", w.now, to.name, from.name)
				}
			})
		}
	}
	w.after(20*time.Millisecond, w.chat)
}

func (w *world) node(name string) *machine {
	for _, m := range w.nodes {
		if m.name == name {
			return m
		}
	}
	return nil
}

// restart starts a new agent from the node's file.
func (w *world) restart(m *machine) {
	m.down = true
	w.after(m.away, func() {
		m.down, m.keeper = false, NewKeeper(m.file, w.rnd.Uint64)
	})
}

func (w *world) hear(from string, m *machine, a Ask) (Tell, bool) {
	died := false
	t := m.keeper.Hear(from, a, func(next Ring) error {
		m.file = next
		died = m.crash != nil && m.crash(next)
		return nil
	}, func() error { return nil })
	if died {
		m.crash = nil
		w.restart(m)
	}
	return t, !died
}

// rotate runs a rotation at a node until it ends or the node is down.
func (w *world) rotate(at string, nodes ...string) *Rotation {
	m := w.node(at)
	if len(nodes) == 0 {
		for _, n := range w.nodes {
			nodes = append(nodes, n.name)
		}
	}
	r := NewRotation(w.now, nodes, w.fresh(), grace, w.rnd.Uint64)
	w.runs[at] = r
	life := m.keeper
	var step func()
	step = func() {
		if m.down || m.keeper != life || w.runs[at] != r {
			return
		}
		out, next := r.Due(w.now)
		for _, o := range out {
			w.deliver(m, r, o)
		}
		if !r.Ended() {
			w.after(max(time.Millisecond, min(next-w.now, 5*time.Millisecond)), step)
		}
	}
	step()
	return r
}

// fresh returns a key that was never used before.
func (w *world) fresh() []byte {
	w.keys++
	return keyOf(100 + w.keys)
}

// deliver carries a question to a node and the answer back. Each of them may arrive twice
// or never.
func (w *world) deliver(m *machine, r *Rotation, o Out) {
	to := w.node(o.Node)
	for range 1 + w.rnd.IntN(2) {
		if to != m && w.lost() {
			continue
		}
		w.after(w.delay(), func() {
			if to.down {
				return
			}
			t, alive := w.hear(m.name, to, o.Ask)
			if !alive || to != m && w.lost() {
				return
			}
			w.after(w.delay(), func() { r.Hear(w.now, to.name, t) })
		})
	}
}

func keyOf(b byte) []byte {
	k := make([]byte, KeySize)
	for i := range k {
		k[i] = b
	}
	return k
}

func rings(n int) (out []Ring) {
	for range n {
		out = append(out, Ring{keyOf(1)})
	}
	return out
}

// rotated checks that every node has the same one key, and that it is not the old one.
func (w *world) rotated(why string) {
	w.t.Helper()
	first := w.nodes[0].file
	for _, m := range w.nodes {
		if len(m.file) != 1 || !m.file.Equal(first) || !m.keeper.Ring().Equal(first) {
			w.t.Errorf("%s: %s ends with %v", why, m.name, m.file.View())
		}
	}
	if IDOf(first[0]) == IDOf(keyOf(1)) {
		w.t.Errorf("%s: the old key is still in use", why)
	}
}

// TestRotation: all three steps happen on every node, in order, whatever packets are
// lost.
func TestRotation(t *testing.T) {
	for seed := range uint64(100 / share) {
		w := newWorld(t, seed, rings(3)...)
		w.loss = int(seed) % 70
		r := w.rotate("pbx2")
		w.run(time.Minute, r)
		if r.Err() != nil {
			t.Fatalf("seed %d: %v", seed, r.Err())
		}
		w.rotated(fmt.Sprint("seed ", seed))
		lines := r.Lines()
		if len(lines) != 9 || !slices.IsSortedFunc(lines, func(a, b Line) int { return cmp.Compare(a.To, b.To) }) {
			t.Fatalf("seed %d: %v", seed, lines)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestRestartsAndLosses: in each step an agent dies once the step is in its file, or a
// node stays away until the rotation is given up. This may be the rotating node itself.
// Another rotation then finishes it, whichever node runs that one.
func TestRestartsAndLosses(t *testing.T) {
	for seed := range uint64(6 / share) {
		for _, stage := range []Stage{Accepts, Seals, Alone} {
			for _, away := range []bool{false, true} {
				for victim := range 3 {
					name := fmt.Sprintf("seed %d: pbx%d, when it %s, away %t", seed, victim+1, stage, away)
					w := newWorld(t, seed, rings(3)...)
					w.loss = 20
					m := w.nodes[victim]
					m.crash = func(next Ring) bool { return next.View().Stage(IDOf(keyOf(101))) == stage }
					m.away = 300 * time.Millisecond
					if away { // for longer than the rotation waits
						m.away = 40 * time.Second
					}
					first := w.rotate("pbx1")
					if away {
						w.run(50 * time.Second)
					} else {
						w.run(20*time.Second, first)
					}
					if victim > 0 && !away && first.Err() != nil {
						t.Fatalf("%s: a restart ends the rotation: %v", name, first.Err())
					}
					again := w.rotate(fmt.Sprint("pbx", seed%3+1))
					w.run(time.Minute, again)
					if again.Err() != nil {
						t.Fatalf("%s: it is not finished: %v", name, again.Err())
					}
					w.rotated(name)
					if t.Failed() {
						t.Fatal(name)
					}
				}
			}
		}
	}
}

// TestPowerCut: the whole cluster goes down at any moment of a rotation and starts again
// from its files. Every node hears every other one, and the rotation can be finished.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(100 / share) {
		w := newWorld(t, seed, rings(3)...)
		w.loss = int(seed) % 50
		w.rotate("pbx1")
		w.run(time.Duration(w.rnd.Int64N(int64(2500 * time.Millisecond))))
		for _, m := range w.nodes {
			w.restart(m)
		}
		w.run(2 * time.Second)
		again := w.rotate(fmt.Sprint("pbx", seed%3+1))
		w.run(time.Minute, again)
		if again.Err() != nil {
			t.Fatalf("seed %d: %v", seed, again.Err())
		}
		w.rotated(fmt.Sprint("seed ", seed))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestTwoAtOnce: two operators rotate on two nodes. One rotation is refused, or both are,
// or one follows right after the other. What they leave behind works, and a third one can
// finish it.
func TestTwoAtOnce(t *testing.T) {
	both := 0
	for seed := range uint64(*twoAtOnce / share) {
		w := newWorld(t, seed, rings(3)...)
		w.loss = int(seed) % 30
		one := w.rotate("pbx1")
		w.run(time.Duration(w.rnd.Int64N(int64(1500 * time.Millisecond))))
		two := w.rotate("pbx3")
		w.run(time.Minute, one, two)
		if one.Err() == nil && two.Err() == nil {
			both++
		}
		again := w.rotate("pbx2")
		w.run(time.Minute, again)
		if again.Err() != nil {
			t.Fatalf("seed %d: %v", seed, again.Err())
		}
		w.rotated(fmt.Sprint("seed ", seed))
		if t.Failed() {
			t.Fatalf("seed %d: %v, %v", seed, one.Err(), two.Err())
		}
	}
	t.Logf("both came to their end in %d of %d runs", both, *twoAtOnce/share)
}

// TestSilentNode: the rotation names a node that is down before anything is changed.
// Without that node, the others rotate.
func TestSilentNode(t *testing.T) {
	w := newWorld(t, 1, rings(3)...)
	w.nodes[2].down = true
	r := w.rotate("pbx1")
	w.run(10 * time.Second)
	if r.Err() == nil || !strings.HasPrefix(r.Err().Error(), "pbx3: no answer within 3s; nothing was changed") || r.Changed() {
		t.Errorf("%v", r.Err())
	}
	if d := w.nodes[0].file; !d.Equal(rings(1)[0]) {
		t.Errorf("changed: %v", d.View())
	}
	r = w.rotate("pbx1", "pbx1", "pbx2")
	w.run(30 * time.Second)
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	w.nodes = w.nodes[:2]
	w.rotated("without pbx3")
}

// TestRefusals: an error says which node cannot do a step. A cluster whose nodes do not
// hear each other is left unchanged.
func TestRefusals(t *testing.T) {
	w := newWorld(t, 1, rings(2)...)
	var full Ring
	for i := range byte(MaxKeys) {
		full = append(full, keyOf(i+1))
	}
	w.nodes[1].keeper.Replace(full)
	r := w.rotate("pbx1")
	w.run(10 * time.Second)
	if r.Err() == nil || !strings.HasPrefix(r.Err().Error(), "pbx2: has 8 keys or more already; nothing was changed") || r.Changed() {
		t.Errorf("%v", r.Err())
	}
	apart := NewRotation(0, []string{"pbx1", "pbx2"}, keyOf(9), grace, w.rnd.Uint64)
	out, _ := apart.Due(0)
	for i, o := range out {
		apart.Hear(0, o.Node, Tell{Question: o.Ask.Question, Challenge: 5, View: Ring{keyOf(byte(i + 1))}.View()})
	}
	if err := apart.Err(); err == nil || !strings.HasPrefix(err.Error(), "pbx2 does not accept the key that pbx1 seals with") || apart.Changed() {
		t.Errorf("%v", err)
	}
	sick := NewRotation(0, []string{"pbx1"}, keyOf(9), grace, w.rnd.Uint64)
	out, _ = sick.Due(0)
	k := NewKeeper(rings(1)[0], w.rnd.Uint64)
	sick.Hear(0, "pbx1", k.Hear("pbx1", out[0].Ask, nil, func() error { return fmt.Errorf("/etc/sipalive/key: read-only file system") }))
	if err := sick.Err(); err == nil || err.Error() != "pbx1: /etc/sipalive/key: read-only file system" {
		t.Errorf("%v", err)
	}
}

// TestRecordedOrder: an order counts once, and only with the keeper's challenge.
func TestRecordedOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	k := NewKeeper(rings(1)[0], rnd.Uint64)
	puts := 0
	put := func(Ring) error { puts++; return nil }
	order := Ask{Order: &Order{From: rings(1)[0].View().Digest(), To: Accepts, New: IDOf(keyOf(2))}}
	for _, c := range []uint64{0, 5} {
		if order.Challenge = c; k.Hear("pbx2", order, put, nil).Err != "" || puts > 0 {
			t.Fatal("an order counts without its challenge")
		}
	}
	told := k.Hear("pbx2", Ask{}, put, nil)
	order.Challenge = told.Challenge
	order.Order.Key = wrapped(t, keyOf(2), told.Public, rnd)
	if k.Hear("pbx3", order, put, nil); puts > 0 {
		t.Fatal("another node's challenge counts")
	}
	if got := k.Hear("pbx2", order, put, nil); got.Err != "" || puts != 1 || got.View.Stage(IDOf(keyOf(2))) != Accepts {
		t.Fatalf("%+v", got)
	}
	k.Replace(rings(1)[0]) // as if it had been undone: the recorded order must not do it again
	if k.Hear("pbx2", order, put, nil); puts != 1 || len(k.Ring()) != 1 {
		t.Error("a recorded order counts again")
	}
}

// TestOrders: an order that skips a stage, or that was made for another ring, is refused.
func TestOrders(t *testing.T) {
	o, n := keyOf(1), keyOf(2)
	id := IDOf(n)
	all := map[Stage]Ring{Lacks: {o}, Accepts: {o, n}, Seals: {n, o}, Alone: {n}}
	for at, ring := range all {
		if got := ring.View().Stage(id); got != at {
			t.Fatalf("%v is %s", ring.View(), got)
		}
		for to := range Alone + 1 {
			got, err := ring.Apply(Order{From: ring.View().Digest(), To: to, New: id}, opens(n))
			if legal := to <= at+1; (err == nil) != legal || legal && !got.Equal(all[max(at, to)]) {
				t.Errorf("%s, %s: %v, %v", at, to, got.View(), err)
			}
			if _, err := ring.Apply(Order{From: 7, To: to, New: id}, opens(n)); to > at && err == nil {
				t.Errorf("%s, %s: of another ring", at, to)
			}
		}
	}
	if _, err := all[Lacks].Apply(Order{From: all[Lacks].View().Digest(), To: Accepts, New: id}, opens(o)); err == nil {
		t.Error("a key of another name is taken")
	}
}

func opens(key []byte) func(Wrapped) ([]byte, error) {
	return func(Wrapped) ([]byte, error) { return key, nil }
}

func wrapped(t *testing.T, key []byte, to Public, rnd *rand.Rand) Wrapped {
	t.Helper()
	w, err := Wrap(key, to, rnd.Uint64)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWrapped: only the node for which a key was wrapped can open it. A recording cannot
// be opened once its challenge is used up.
func TestWrapped(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	mine, public := newPrivate(rnd.Uint64)
	other, _ := newPrivate(rnd.Uint64)
	w := wrapped(t, keyOf(2), public, rnd)
	if got, err := unwrap(mine, w); err != nil || !slices.Equal(got, keyOf(2)) {
		t.Errorf("%v, %v", got, err)
	}
	if w == wrapped(t, keyOf(2), public, rnd) {
		t.Error("the same key twice is the same to see")
	}
	flipped := w
	flipped.Sealed[3] ^= 1
	for what, c := range map[string]struct {
		by *ecdh.PrivateKey
		w  Wrapped
	}{"another node": {other, w}, "changed": {mine, flipped}, "nothing": {mine, Wrapped{}}} {
		if got, err := unwrap(c.by, c.w); err != errWrapped || got != nil {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	if _, err := Wrap(keyOf(2), Public{}, rnd.Uint64); err != errWrapped {
		t.Errorf("for nobody: %v", err)
	}
	k := NewKeeper(rings(1)[0], rnd.Uint64)
	first := k.Hear("pbx2", Ask{}, nil, nil)
	k.Hear("pbx2", Ask{Challenge: first.Challenge, Order: &Order{To: Seals}}, nil, nil)
	if second := k.Hear("pbx2", Ask{}, nil, nil); second.Public == first.Public || second.Public == k.Hear("pbx3", Ask{}, nil, nil).Public {
		t.Error("a public key serves twice")
	}
}
