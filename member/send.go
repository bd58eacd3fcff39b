package member

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/elect"
)

const (
	// One greeting per helloSpacing, and a few at once when two nodes start
	// together, bound what replays can make us send to one peer.
	helloSpacing = 20 * time.Millisecond
	helloBurst   = 4
	// resendWithin is how old a packet may be to be worth repeating.
	resendWithin = time.Second
)

// sender has the buffers of one sending goroutine.
type sender struct {
	n     *Network
	buf   []byte
	body  []byte
	outs  []*outlet                 // per local address
	addrs map[*peer][]unix.Sockaddr // per path; a Sockaddr is one goroutine's
}

func (n *Network) newSender() *sender {
	s := &sender{n: n, addrs: map[*peer][]unix.Sockaddr{}}
	for _, p := range n.transport.paths {
		s.outs = append(s.outs, newOutlet(p.raw))
	}
	return s
}

// to is where a peer is reached.
func (s *sender) to(p *peer) []unix.Sockaddr {
	if addrs, known := s.addrs[p]; known {
		return addrs
	}
	if len(s.addrs) >= 2*maxNodes {
		clear(s.addrs) // of peers that are none any more
	}
	var addrs []unix.Sockaddr
	for _, a := range p.paths {
		addrs = append(addrs, sockaddr(a))
	}
	s.addrs[p] = addrs
	return addrs
}

// Send sends one message by every path, or through the gateway alone. It never waits. From the agent's loop
// only: its buffers are reused. A peer that is down, a full socket or a missing
// route is no error here but in Counters: packets get lost.
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

// relay sends what has been sealed through the gateway.
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

// keep remembers a heartbeat or an ask while it is the last packet to the
// peer. Only these are repeated: they say what is so, and hearing one twice, or
// a little late, is within what the protocol expects of a network.
func (p *peer) keep(out elect.Outgoing, body []byte) {
	p.lastSeq = 0
	if newestOnly(out.Msg) {
		p.last, p.lastSeq, p.lastAt = append(p.last[:0], body...), out.Seq, time.Now()
	}
}

// mayGreet moves the time up to which greetings are spent: one more costs
// helloSpacing, and at most helloBurst of it may be saved up.
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

// greet gives the peer our nonce and echoes its own: with a repeat of our last
// packet, which may have failed for want of that echo and spares the peer from
// waiting for the next, or with a hello if one is owed.
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
	_ = s.send(p, h, s.body) // in bounds: it has been sent before, or is a hello
}
