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
	// unknownAfter packets of a peer that no key opens, none that one does in between,
	// its key is called unknown.
	unknownAfter = 3
	// unfinishedAfter is how long a rotation may stand still before people are told.
	unfinishedAfter = 30 * time.Second
	// triedFor: a question that comes in copies, or was recorded, writes to disk once.
	triedFor = time.Second
)

// keys keeps this node's keyring, and has the cluster change it (§4.11). Files are
// written and peers answered in a goroutine of its own.
type keys struct {
	a       *Agent
	in      chan keyMessage
	keeper  *keyring.Keeper // this and what was tried: under Agent.reloading
	tried   time.Time
	tryErr  error
	current atomic.Pointer[keyring.Ring]

	mu       sync.Mutex
	rotation chan keyMessage             // answers for the one that is driven here; nil: none is
	asked    map[elect.Node]uint64       // the last question, for display
	views    map[elect.Node]keyring.View // what it was answered
	heard    map[elect.Node]member.Heard // when a packet of it was opened last
	unknown  map[elect.Node]bool
	changed  time.Time // when the ring was changed last
	told     bool      // that it stands still half-way
}

// keyMessage is what a node says about keys; this node's own word goes the same way.
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

// randomWord cannot be guessed: it is what makes an order fresh.
func randomWord() uint64 {
	var b [8]byte
	crand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return binary.BigEndian.Uint64(b[:])
}

// hear takes what a peer says; what finds the queue full is lost, as packets are.
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

// answer obeys where it has to. Orders and reloads exclude each other.
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

// put makes a ring last: the file first, so that an agent that ends in between comes
// up with what it may have confirmed.
func (x *keys) put(next keyring.Ring) error {
	if err := config.StoreKeyring(x.a.Config().KeyFile, x.keeper.Ring(), next); err != nil {
		return err
	}
	return x.a.network.Rekey(next)
}

// try tells whether put would work.
func (x *keys) try() error {
	if time.Since(x.tried) > triedFor {
		x.tryErr = config.TryKeyring(x.a.Config().KeyFile, x.keeper.Ring())
		x.tried = time.Now()
	}
	return x.tryErr
}

// replace takes the ring of a file that was reloaded; under Agent.reloading.
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
	default: // it is asked again
	}
}

// askAll has every peer tell of its keys.
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

// listen finds the peers that speak with a key that this node has not: one that was
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

// standsStill tells once of a rotation that nobody brings to its end.
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

// addTo puts into a status what is known of everybody's keys.
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
