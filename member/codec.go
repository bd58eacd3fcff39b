// Package member talks to the peers. It carries the elect room's messages in memberlist's
// encrypted user messages. It checks that incoming messages are fresh and come from the
// right address (§4.2), and it keeps gossip joined. It decides nothing.
package member

import (
	"errors"
	"fmt"

	"sipalive/elect"
	"sipalive/keyring"
)

// Packet is one datagram between two agents.
type Packet struct {
	Header
	Msg  elect.Message   // nil: a hello, which carries only the header's nonces
	Keys keyring.Message // set in a hello that is about keys
}

// Header is what member adds to every message.
//
// To is part of it because a sender has one sequence for all its peers: an answer meant
// for one node must not pass as an answer to another.
type Header struct {
	From     elect.Node
	To       elect.Node
	Instance elect.Instance // of the sender
	Seq      elect.Seq      // 0: a hello
	Nonce    uint64         // the sender's, for the receiver to echo; never 0
	Echo     uint64         // the last nonce the sender heard from the receiver; 0: none yet
	Relayed  bool           // sent through the gateway (§4.6)
}

// Bounds of what is encoded and accepted. A configuration within config's own bounds
// stays far below them.
const (
	magic   = 0x53
	version = 4

	maxName   = 63
	maxVIPID  = 96  // a role's identity is its name with a prefix
	maxText   = 512 // bytes of a reason in words; longer ones are cut
	maxVoters = 64
	maxNodes  = 64
	maxVIPs   = 1024
	// maxResults results of the longest kind still fit into a datagram.
	maxResults = 56
	// maxPacket leaves room in one UDP datagram for label and encryption.
	maxPacket = 60000
)

// The kinds of body. The numbers are part of the format: never reuse one.
const (
	kindHello     = 0
	kindHeartbeat = 1
	kindAsk       = 2
	kindAnswer    = 3
	kindPrepare   = 4
	kindReady     = 5
	kindRelease   = 6
	kindReleased  = 7
	kindPassed    = 8
	kindRequest   = 9
	kindReply     = 10
	kindReport    = 11
	kindKeep      = 12
	kindKept      = 13

	kindConnections = 14
	kindKeysAsk     = 15
	kindKeysTell    = 16
	kindTimeline    = 17
)

// Encode appends p to dst. If p is out of bounds, it returns an error and dst unchanged:
// the receiver would refuse such a packet.
func Encode(dst []byte, p Packet) ([]byte, error) {
	b, err := appendHeader(dst, p.Header)
	if err != nil {
		return dst, err
	}
	if p.Keys != nil {
		b, err = appendKeys(b, p.Keys)
	} else {
		b, err = appendBody(b, p.Msg)
	}
	if err != nil {
		return dst, err
	}
	if (p.Seq == 0) != (p.Msg == nil) || p.Msg != nil && p.Keys != nil {
		return dst, errors.New("encode packet: sequence number 0 is for a hello alone")
	}
	if len(b)-len(dst) > maxPacket {
		return dst, fmt.Errorf("encode packet: %d bytes do not fit in a datagram of %d", len(b)-len(dst), maxPacket)
	}
	return b, nil
}

// Decode reads one packet. It is strict: anything out of bounds, not in its shortest form
// or left over is an error. So every accepted packet has exactly one encoding. The packet
// shares no memory with b.
func Decode(b []byte) (Packet, error) { return (*Reader)(nil).Decode(b) }

// Decode reads one packet like the package's Decode, and remembers values for later
// packets.
func (r *Reader) Decode(b []byte) (Packet, error) {
	if len(b) > maxPacket {
		return Packet{}, errors.New("decode packet: too long")
	}
	c := coder{b: b, decoding: true, known: r}
	var p Packet
	c.header(&p.Header)
	if p.Keys = c.decodeKeys(); p.Keys == nil {
		p.Msg = c.decodeBody()
	}
	if c.err == nil && len(c.b) > 0 {
		c.fail("bytes left over")
	}
	if c.err == nil && (p.Seq == 0) != (p.Msg == nil) {
		c.fail("sequence number 0 is for a hello alone")
	}
	if c.err != nil {
		return Packet{}, fmt.Errorf("decode packet: %w", c.err)
	}
	return p, nil
}

// newestOnly reports whether m counts only if nothing newer from its sender has been
// heard. This holds for a heartbeat, too, because it is also an ask (§4.2).
func newestOnly(m elect.Message) bool {
	switch m.(type) {
	case elect.Heartbeat, elect.Ask:
		return true
	}
	return false
}

func appendHeader(dst []byte, h Header) ([]byte, error) {
	c := coder{b: dst}
	c.header(&h)
	if c.err != nil {
		return dst, fmt.Errorf("encode packet: %w", c.err)
	}
	return c.b, nil
}

func appendBody(dst []byte, m elect.Message) ([]byte, error) {
	c := coder{b: dst}
	c.encodeBody(m)
	if c.err != nil {
		return dst, fmt.Errorf("encode %T: %w", m, c.err)
	}
	return c.b, nil
}

func (c *coder) header(h *Header) {
	c.exact(magic, "not one of ours")
	c.exact(version, "another version of the format")
	name(c, &h.From, required)
	name(c, &h.To, required)
	word(c, &h.Instance)
	number(c, &h.Seq)
	word(c, &h.Nonce)
	word(c, &h.Echo)
	c.flags(&h.Relayed)
	if c.err == nil && h.Instance == 0 {
		c.fail("no instance")
	}
	if c.err == nil && h.Nonce == 0 {
		c.fail("no nonce")
	}
}
