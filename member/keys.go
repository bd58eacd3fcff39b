package member

import (
	"fmt"
	"time"

	"sipalive/elect"
	"sipalive/keyring"
)

// Messages about keys have no sequence number. They are not part of the election, and
// keyring's own challenges decide which of them are fresh.

func appendKeys(dst []byte, m keyring.Message) ([]byte, error) {
	c := coder{b: dst}
	switch m := m.(type) {
	case keyring.Ask:
		c.b = append(c.b, kindKeysAsk)
		c.keysAsk(&m)
	case keyring.Tell:
		c.b = append(c.b, kindKeysTell)
		c.keysTell(&m)
	default:
		c.fail("no such message")
	}
	if c.err != nil {
		return dst, fmt.Errorf("encode %T: %w", m, c.err)
	}
	return c.b, nil
}

// decodeKeys returns nil, and reads nothing, unless the body is about keys.
func (c *coder) decodeKeys() keyring.Message {
	if len(c.b) == 0 || c.b[0] != kindKeysAsk && c.b[0] != kindKeysTell {
		return nil
	}
	if c.byte() == kindKeysAsk {
		var a keyring.Ask
		c.keysAsk(&a)
		return a
	}
	var t keyring.Tell
	c.keysTell(&t)
	return t
}

func (c *coder) keysAsk(a *keyring.Ask) {
	ordered := a.Order != nil
	word(c, &a.Question)
	word(c, &a.Challenge)
	c.flags(&a.Try, &ordered)
	if !ordered || c.err != nil {
		return
	}
	if c.decoding {
		a.Order = &keyring.Order{}
	}
	o := a.Order
	word(c, &o.From)
	enum(c, &o.To, keyring.Accepts, keyring.Alone)
	c.bytes(o.New[:])
	if o.To == keyring.Accepts {
		c.bytes(o.Key.From[:])
		c.bytes(o.Key.Sealed[:])
	}
}

func (c *coder) keysTell(t *keyring.Tell) {
	word(c, &t.Question)
	word(c, &t.Challenge)
	c.bytes(t.Public[:])
	for i := range list(c, (*[]keyring.ID)(&t.View), keyring.MaxKeys) {
		c.bytes(t.View[i][:])
	}
	c.text(&t.Err)
}

// bytes carries len(v) bytes.
func (c *coder) bytes(v []byte) {
	if c.decoding {
		copy(v, c.take(len(v)))
	} else {
		c.b = append(c.b, v...)
	}
}

// SendKeys sends a peer a message about keys by every path, and with relay also through
// the gateway. The message is sealed like every packet. SendKeys never waits and is safe
// for concurrent use.
func (n *Network) SendKeys(to elect.Node, m keyring.Message, relay bool) error {
	p := n.directory().peers[to]
	if p == nil {
		return fmt.Errorf("send to node %q: not a configured peer", to)
	}
	s := n.newSender()
	var err error
	if s.body, err = appendKeys(nil, m); err != nil {
		return err
	}
	for _, relayed := range []bool{false, true} {
		if relayed && !relay {
			break
		}
		n.mu.Lock()
		h := n.guard.Stamp(p.name, 0)
		n.mu.Unlock()
		h.Relayed = relayed
		if err := s.send(p, h, s.body); err != nil {
			return err
		}
	}
	return nil
}

// keys passes a message about keys on to OnKeys. Answers are limited like greetings,
// because a recorded question could otherwise make us answer forever.
func (r *receiver) keys(p Packet, from *peer) {
	n := r.n
	n.mu.Lock()
	v := n.guard.misplaced(p.Header)
	_, asks := p.Keys.(keyring.Ask)
	wanted := n.onKeys != nil && v == 0 && (!asks || mayGreet(&from.keysSpent, time.Now()))
	n.mu.Unlock()
	switch {
	case v != 0:
		n.count.verdict(v, false)
	case wanted:
		n.count.Keys.Add(1)
		n.onKeys(p.From, p.Keys)
	default:
		n.count.KeysDropped.Add(1)
	}
}

// Rekey replaces the keys while the network runs. From now on the first one seals, and
// all of them open. On error nothing changes.
func (n *Network) Rekey(keys [][]byte) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	return n.reconfigure(n.directory().config.Peers, keys)
}

// Heard counts packets that came from a peer's addresses.
type Heard struct {
	Opened   uint64 // packets that one of our keys opened
	WrongKey uint64 // packets that none of our keys opened
}

// Heard returns the counts for each configured peer so far.
func (n *Network) Heard() map[elect.Node]Heard {
	heard := map[elect.Node]Heard{}
	for name, p := range n.directory().peers {
		heard[name] = Heard{p.opened.Load(), p.wrongKey.Load()}
	}
	return heard
}
