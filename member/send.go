package member

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/elect"
)

const (
	// helloSpacing and helloBurst limit what replayed packets can make us send to one
	// peer: one greeting per helloSpacing, and a few at once when two nodes start
	// together.
	helloSpacing = 20 * time.Millisecond
	helloBurst   = 4
	// resendWithin is the greatest age of a packet that is worth repeating.
	resendWithin = time.Second
)

// sender holds the buffers of one sending goroutine.
type sender struct {
	n     *Network
	buf   []byte
	body  []byte
	outs  []*outlet                 // one per local address
	addrs map[*peer][]unix.Sockaddr // one per path; a Sockaddr must stay with one goroutine
}

func (n *Network) newSender() *sender {
	s := &sender{n: n, addrs: map[*peer][]unix.Sockaddr{}}
	for _, p := range n.transport.paths {
		s.outs = append(s.outs, newOutlet(p.raw))
	}
	return s
}

// to returns the addresses of a peer.
func (s *sender) to(p *peer) []unix.Sockaddr {
	if addrs, known := s.addrs[p]; known {
		return addrs
	}
	if len(s.addrs) >= 2*maxNodes {
		clear(s.addrs) // removes addresses of nodes that are no longer peers
	}
	var addrs []unix.Sockaddr
	for _, a := range p.paths {
		addrs = append(addrs, sockaddr(a))
	}
	s.addrs[p] = addrs
	return addrs
}

// Send sends one message by every path, or only through the gateway. It never waits. Only
// the agent's loop may call it, because its buffers are reused. If a peer is down, a
// socket is full or a route is missing, that shows in Counters and is no error: packets
// get lost.
func (n *Network) Send(out elect.Outgoing) error {
	p := n.directory().peers[out.To]
	if p == nil {
		return fmt.Errorf("send to node %q: not a configured peer", out.To)
	}
	if out.Seq == 0 || out.Msg == nil {
		return fmt.Errorf("send to node %s: no sequence number or no message", out.To)
	}
	s := n.out
	body, err := appendBody(s.body[:0], out.Msg)
	if err != nil {
		return err
	}
	s.body = body
	n.mu.Lock()
	h := n.guard.Stamp(p.name, out.Seq)
	if h.Relayed = out.Relay; !out.Relay {
		p.keep(out, body)
	}
	n.mu.Unlock()
	return s.send(p, h, body)
}

func (s *sender) send(p *peer, h Header, body []byte) error {
	n := s.n
	sealer := n.directory().sealer
	b, err := appendHeader(sealer.begin(s.buf), h)
	if err != nil {
		return err
	}
	if len(b)+len(body) > maxPacket {
		return fmt.Errorf("send to node %s: %d bytes do not fit in a datagram of %d", p.name, len(b)+len(body), maxPacket)
	}
	b = sealer.seal(append(b, body...))
	s.buf = b
	if h.Relayed {
		s.relay(p)
		return nil
	}
	for i, to := range s.to(p) {
		if s.outs[i].write(b, to) != nil {
			n.count.SendErrors.Add(1)
		} else {
			n.count.Sent.Add(1)
		}
	}
	return nil
}

// relay sends the sealed packet through the gateway.
func (s *sender) relay(p *peer) {
	n := s.n
	switch {
	case n.relay == nil:
	case n.relay(p.name, s.buf) != nil:
		n.count.RelayErrors.Add(1)
	default:
		n.count.Relayed.Add(1)
	}
}

// keep remembers a heartbeat or an ask while it is the last packet to the peer. Only
// these are repeated. They state what holds now; the protocol allows for hearing one
// twice or a little late.
func (p *peer) keep(out elect.Outgoing, body []byte) {
	p.lastSeq = 0
	if newestOnly(out.Msg) {
		p.last, p.lastSeq, p.lastAt = append(p.last[:0], body...), out.Seq, time.Now()
	}
}

// mayGreet reports whether one more greeting is allowed, and moves spent. Each greeting
// costs helloSpacing; at most helloBurst of them can be saved up.
func mayGreet(spent *time.Time, now time.Time) bool {
	if earliest := now.Add(-helloBurst * helloSpacing); spent.Before(earliest) {
		*spent = earliest
	}
	if next := spent.Add(helloSpacing); !next.After(now) {
		*spent = next
		return true
	}
	return false
}

// greet sends the peer our nonce and the echo of its own. If our last packet can be
// repeated, greet repeats it: that packet may have failed because it lacked the echo, and
// the peer need not wait for the next one. Otherwise it sends a hello, if owed is true.
func (s *sender) greet(p *peer, owed bool) {
	n := s.n
	now := time.Now()
	n.mu.Lock()
	resend := p.lastSeq != 0 && now.Sub(p.lastAt) < resendWithin
	if !resend && !owed || !mayGreet(&p.spent, now) {
		n.mu.Unlock()
		return
	}
	seq := elect.Seq(0)
	s.body = append(s.body[:0], kindHello)
	if resend {
		seq = p.lastSeq
		s.body = append(s.body[:0], p.last...)
	}
	h := n.guard.Stamp(p.name, seq)
	n.mu.Unlock()
	if resend {
		n.count.Resent.Add(1)
	} else {
		n.count.HellosSent.Add(1)
	}
	_ = s.send(p, h, s.body) // no error: the body was sent before, or is a hello
}
