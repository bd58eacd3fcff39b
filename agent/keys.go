package agent

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/keyring"
	"sipalive/member"
)

const (
	// keysEvery is how often the peers are asked for their keys, for display.
	keysEvery = time.Second
	// unknownAfter is after how many packets of a peer that no key opens the peer's key
	// is called unknown. A packet that a key opens starts the count over.
	unknownAfter = 3
	// unfinishedAfter is how long a rotation may stand still before people are told.
	unfinishedAfter = 30 * time.Second
	// triedFor is how long the result of a try is used again, so that a question that
	// comes in copies, or was recorded, writes to disk once.
	triedFor = time.Second
)

// keys keeps this node's keyring and changes it as the cluster's rotations ask (§4.11).
// It writes files and answers peers in a goroutine of its own.
type keys struct {
	a       *Agent
	in      chan keyMessage
	keeper  *keyring.Keeper // keeper, tried and tryErr: under Agent.reloading
	tried   time.Time
	tryErr  error
	current atomic.Pointer[keyring.Ring]

	mu       sync.Mutex
	rotation chan keyMessage             // answers for the rotation that this node drives; nil: it drives none
	asked    map[elect.Node]uint64       // the last question to each peer, for display
	views    map[elect.Node]keyring.View // the answers to those questions
	heard    map[elect.Node]member.Heard // when a packet of the peer was last opened
	unknown  map[elect.Node]bool
	changed  time.Time // when the ring was last changed
	told     bool      // people were told that a rotation stands still
}

// keyMessage is what a node says about keys. This node's own messages to itself go the
// same way.
type keyMessage struct {
	from elect.Node
	m    keyring.Message
}

func newKeys(a *Agent) *keys {
	x := &keys{a: a, in: make(chan keyMessage, 64), keeper: keyring.NewKeeper(a.Keyring, randomWord),
		asked: map[elect.Node]uint64{}, views: map[elect.Node]keyring.View{}, heard: map[elect.Node]member.Heard{},
		unknown: map[elect.Node]bool{}, changed: time.Now()}
	x.current.Store(&a.Keyring)
	return x
}

// randomWord returns a number that cannot be guessed. It makes an order fresh.
func randomWord() uint64 {
	var b [8]byte
	crand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return binary.BigEndian.Uint64(b[:])
}

// hear takes a peer's message. It drops the message when the queue is full, as packets
// are.
func (x *keys) hear(from elect.Node, m keyring.Message) {
	select {
	case x.in <- keyMessage{from, m}:
	default:
		x.a.stats.dropped.Add(1)
	}
}

func (x *keys) run(ctx context.Context) error {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	x.askAll()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-x.in:
			switch said := m.m.(type) {
			case keyring.Ask:
				x.answer(m.from, said)
			case keyring.Tell:
				x.tell(m.from, said)
			}
		case <-tick.C:
			x.askAll()
			x.listen(x.a.network.Heard())
			x.standsStill()
		}
	}
}

// answer carries out an order if it has to, and answers. Orders and reloads exclude each
// other.
func (x *keys) answer(from elect.Node, ask keyring.Ask) {
	x.a.reloading.Lock()
	before := x.keeper.Ring()
	t := x.keeper.Hear(string(from), ask, x.put, x.try)
	after := x.keeper.Ring()
	x.a.reloading.Unlock()
	if !after.Equal(before) {
		x.take(after)
		x.a.recorder.keyChanged(from, before, after)
	}
	if from == elect.Node(x.a.Self.Name) {
		x.tell(from, t)
	} else if x.a.network.SendKeys(from, t, ask.Try || ask.Order != nil) != nil {
		x.a.stats.sendErrors.Add(1)
	}
}

// put makes a ring last. It writes the file first, so that an agent that ends in between
// starts again with a ring that it may have confirmed.
func (x *keys) put(next keyring.Ring) error {
	if err := config.StoreKeyring(x.a.Config().KeyFile, x.keeper.Ring(), next); err != nil {
		return err
	}
	return x.a.network.Rekey(next)
}

// try returns whether put would work; it does not change the ring.
func (x *keys) try() error {
	if time.Since(x.tried) > triedFor {
		x.tryErr = config.TryKeyring(x.a.Config().KeyFile, x.keeper.Ring())
		x.tried = time.Now()
	}
	return x.tryErr
}

// replace takes the ring of a reloaded file. The caller holds Agent.reloading.
func (x *keys) replace(ring keyring.Ring) {
	if !ring.Equal(x.keeper.Ring()) {
		x.keeper.Replace(ring)
		x.take(ring)
	}
}

func (x *keys) take(ring keyring.Ring) {
	x.current.Store(&ring)
	x.mu.Lock()
	x.changed, x.told = time.Now(), false
	x.mu.Unlock()
}

func (x *keys) tell(from elect.Node, t keyring.Tell) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.Question == x.asked[from] {
		x.views[from] = t.View
	}
	if x.rotation == nil {
		return
	}
	select {
	case x.rotation <- keyMessage{from, t}:
	default: // the rotation asks again
	}
}

// askAll asks every peer for its keys.
func (x *keys) askAll() {
	peers := Peers(x.a.Config(), x.a.Self)
	questions := map[elect.Node]uint64{}
	for _, p := range peers {
		questions[p.Name] = randomWord()
	}
	x.mu.Lock()
	x.asked = questions
	x.mu.Unlock()
	for to, q := range questions {
		if x.a.network.SendKeys(to, keyring.Ask{Question: q}, false) != nil {
			x.a.stats.sendErrors.Add(1)
		}
	}
}

// listen finds the peers that seal with a key this node does not have: peers that were
// away while the key was rotated.
func (x *keys) listen(now map[elect.Node]member.Heard) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for name, h := range now {
		last, known := x.heard[name]
		was := x.unknown[name]
		switch {
		case !known || h.Opened != last.Opened:
			x.heard[name] = h
			delete(x.unknown, name)
		case h.WrongKey-last.WrongKey >= unknownAfter:
			x.unknown[name] = true
		}
		if x.unknown[name] != was {
			x.a.recorder.keyUnknown(name, !was)
		}
	}
	for name := range x.heard {
		if _, configured := now[name]; !configured {
			delete(x.heard, name)
			delete(x.unknown, name)
		}
	}
}

// standsStill tells people once of a rotation that nobody finishes.
func (x *keys) standsStill() {
	ring := *x.current.Load()
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(ring) < 2 || x.rotation != nil || x.told || time.Since(x.changed) < unfinishedAfter {
		return
	}
	x.told = true
	x.a.recorder.keyStandsStill(fmt.Sprintf("%s %s (sipalive key rotate, on any node, finishes it)", x.a.Self.Name, ring.View()))
}

// addTo adds to a status what is known of every node's keys.
func (x *keys) addTo(st *control.Status) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range st.Nodes {
		n := &st.Nodes[i]
		v := x.views[elect.Node(n.Name)]
		if n.Name == x.a.Self.Name {
			v = x.current.Load().View()
		}
		n.UnknownKey = x.unknown[elect.Node(n.Name)]
		if !n.Alive {
			continue
		}
		for _, id := range v {
			n.Keys = append(n.Keys, id.String())
		}
		if len(v) > 1 {
			st.KeyRotation = append(st.KeyRotation, fmt.Sprintf("%s %s", n.Name, v))
		}
	}
}
