package member

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sipalive/elect"
	"sipalive/keyring"
)

// aboutKeys returns messages with every field set, and with few.
func aboutKeys() map[string]keyring.Message {
	order := func(to keyring.Stage, key keyring.Wrapped) keyring.Ask {
		return keyring.Ask{Question: 1 << 60, Challenge: 7, Order: &keyring.Order{From: 1 << 63, To: to, New: keyring.IDOf(otherKey), Key: key}}
	}
	return map[string]keyring.Message{
		"question": keyring.Ask{Question: 5},
		"try":      keyring.Ask{Question: 5, Try: true},
		"accept":   order(keyring.Accepts, keyring.Wrapped{From: keyring.Public{1, 31: 2}, Sealed: [48]byte{3, 47: 4}}),
		"seal":     order(keyring.Seals, keyring.Wrapped{}),
		"drop":     order(keyring.Alone, keyring.Wrapped{}),
		"tell": keyring.Tell{Question: 5, Challenge: 6, Public: keyring.Public{5, 31: 6}, Err: "/etc/sipalive/key: read-only file system",
			View: keyring.Ring{key, otherKey}.View()},
	}
}

// TestKeysAreCarried: every message is decoded as it was encoded. No part of it is
// accepted as the whole, and with a sequence number it is not about keys.
func TestKeysAreCarried(t *testing.T) {
	h := header
	h.Seq = 0
	for name, m := range aboutKeys() {
		p := Packet{Header: h, Keys: m}
		b := mustEncode(t, p)
		got, err := Decode(b)
		if d := cmp.Diff(p, got); err != nil || d != "" {
			t.Errorf("%s: %v (-sent +received):\n%s", name, err, d)
		}
		for n := range b {
			if _, err := Decode(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are accepted", name, n, len(b))
			}
		}
		if _, err := Decode(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s: a byte left over is accepted", name)
		}
		p.Seq = 5
		if _, err := Encode(nil, p); err == nil {
			t.Errorf("%s: encoded with a number", name)
		}
	}
	for name, m := range map[string]keyring.Message{
		"no stage":   keyring.Ask{Order: &keyring.Order{}},
		"beyond":     keyring.Ask{Order: &keyring.Order{To: keyring.Alone + 1}},
		"many names": keyring.Tell{View: make(keyring.View, keyring.MaxKeys+1)},
	} {
		if _, err := Encode(nil, Packet{Header: h, Keys: m}); err == nil {
			t.Errorf("%s is encoded", name)
		}
	}
}

// said is a message that a network's OnKeys took.
type said struct {
	from elect.Node
	m    keyring.Message
}

func startKeys(t *testing.T, cfg Config) (*node, chan said) {
	t.Helper()
	heard := make(chan said, 1000)
	cfg.OnKeys = func(from elect.Node, m keyring.Message) { heard <- said{from, m} }
	return start(t, cfg), heard
}

// TestKeysArrive: messages about keys arrive sealed, with their sender, also at a peer
// that was never heard.
func TestKeysArrive(t *testing.T) {
	port := freePort(t)
	a, _ := startKeys(t, config(1, port))
	b, heard := startKeys(t, config(2, port))
	for name, m := range aboutKeys() {
		eventually(t, name+" is heard", func() bool { // not at once: answers are limited
			if err := a.SendKeys(b.self, m, false); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-heard:
				return got.from == a.self && cmp.Equal(m, got.m)
			case <-time.After(helloSpacing):
				return false
			}
		})
	}
	if err := a.SendKeys("pbx9", keyring.Ask{}, true); err == nil {
		t.Error("sent to a stranger")
	}
}

// TestRecordedQuestions: replayed questions are answered at a limited rate. A question
// for another node is never answered.
func TestRecordedQuestions(t *testing.T) {
	port := freePort(t)
	a, heard := startKeys(t, config(1, port))
	p := play(t, 2, port, 9, key)
	packet := func(to elect.Node) []byte {
		h := p.guard.Stamp(to, 0)
		s, err := newSealer("test", [][]byte{key})
		if err != nil {
			t.Fatal(err)
		}
		return s.seal(append(s.begin(nil), mustEncode(t, Packet{Header: h, Keys: keyring.Ask{Question: 1}})...))
	}
	began, recorded := time.Now(), packet("pbx1")
	for range 200 {
		p.write(recorded, 1)
	}
	p.write(packet("pbx3"), 1)
	a.counted(t, "misdirected", func(c Counters) uint64 { return c.Misdirected }, 1)
	eventually(t, "all are counted", func() bool { return a.Counters().Keys+a.Counters().KeysDropped == 200 })
	if most := helloBurst + 1 + int(time.Since(began)/helloSpacing); len(heard) == 0 || len(heard) > most {
		t.Errorf("%d of 200 would be answered, at most %d may be", len(heard), most)
	}
}

// TestDroppedKey: packets sealed with a dropped key are refused, live or recorded. They
// are counted for the peer whose address they come from.
func TestDroppedKey(t *testing.T) {
	port := freePort(t)
	a, _ := startKeys(t, config(1, port))
	p := play(t, 2, port, 9, key)
	p.greet(1)
	recorded := p.packet("pbx1", 1, elect.Heartbeat{})
	p.write(recorded, 1)
	a.hear(t, "pbx2", 1)
	for _, ring := range [][][]byte{{key, otherKey}, {otherKey, key}} {
		if err := a.Rekey(ring); err != nil {
			t.Fatal(err)
		}
	}
	p.write(p.packet("pbx1", 2, elect.Heartbeat{}), 1)
	a.hear(t, "pbx2", 2)
	if err := a.Rekey([][]byte{otherKey}); err != nil {
		t.Fatal(err)
	}
	before := a.Heard()["pbx2"]
	if before.Opened < 2 || before.WrongKey != 0 {
		t.Errorf("before: %+v", before)
	}
	p.write(recorded, 1)
	p.write(p.packet("pbx1", 3, elect.Released{VIP: "x"}), 1)
	a.counted(t, "packets of a key that was dropped", func(c Counters) uint64 { return c.WrongKey }, 2)
	a.silent(t)
	if h := a.Heard(); h["pbx2"] != (Heard{before.Opened, 2}) || h["pbx3"] != (Heard{}) {
		t.Errorf("%+v", h)
	}
	if err := a.Rekey(nil); err == nil {
		t.Error("a ring without keys is taken")
	}
}

// TestNothingIsRefusedWhileKeysChange: three nodes talk as fast as they can, while one
// after the other does each step of a rotation.
func TestNothingIsRefusedWhileKeysChange(t *testing.T) {
	port := freePort(t)
	var nodes []*node
	for i := 1; i <= 3; i++ {
		cfg := config(i, port)
		cfg.probe = 20 * time.Millisecond // gossip must send a lot, too
		nodes = append(nodes, start(t, cfg))
	}
	seq := meetUp(t, nodes[0], nodes[1])
	talk := func(packets int) {
		for range packets {
			for _, from := range nodes {
				for _, to := range nodes {
					if from != to {
						from.mustSend(t, to.self, seq, elect.Heartbeat{})
					}
				}
				for len(from.in) > 0 {
					<-from.in
				}
			}
			seq++
		}
	}
	talk(100)
	for _, ring := range [][][]byte{{key, otherKey}, {otherKey, key}, {otherKey}} {
		for _, i := range rand.Perm(len(nodes)) {
			if err := nodes[i].Rekey(ring); err != nil {
				t.Fatal(err)
			}
			talk(100)
		}
		for _, from := range nodes { // packets under way are read before the next step
			for _, to := range nodes {
				if from != to {
					from.flush(t, to, seq)
				}
			}
		}
		seq++
	}
	for _, n := range nodes {
		if c := n.Counters(); c.WrongKey > 0 || c.Garbage > 0 || c.Accepted < 500 {
			t.Errorf("%s: %+v", n.self, c)
		}
	}
}

// TestKeysThroughTheGateway: a message is relayed only if asked for, and then counts like
// a direct one.
func TestKeysThroughTheGateway(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	relayed := make(chan []byte, 10)
	cfg.Relay = func(_ elect.Node, datagram []byte) error { relayed <- bytes.Clone(datagram); return nil }
	cfg.Peers[0].Address = addr(100) // the direct path leads nowhere
	a, _ := startKeys(t, cfg)
	b, heard := startKeys(t, config(2, port))
	for _, relay := range []bool{false, true} {
		if err := a.SendKeys(b.self, keyring.Ask{Question: 5}, relay); err != nil {
			t.Fatal(err)
		}
	}
	d := <-relayed
	if len(relayed) > 0 {
		t.Error("relayed unasked")
	}
	if _, err := a.transport.paths[0].udp.WriteToUDPAddrPort(d, b.transport.paths[0].local); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got.from != a.self || got.m != (keyring.Ask{Question: 5}) {
		t.Errorf("%+v", got)
	}
}
