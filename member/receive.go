package member

import (
	"errors"
	"net"
	"net/netip"

	"sipalive/elect"
)

// receiver has the state of the receiving goroutine of one local address.
type receiver struct {
	*sender
	known *Reader
	plain []byte
}

// receive reads a socket until it is closed. It counts and drops hostile input; no input
// can end the loop.
func (n *Network) receive(from *path) {
	r := &receiver{sender: n.newSender(), known: NewReader(), plain: make([]byte, 0, 1<<16)}
	buf := make([]byte, 1<<16)
	for {
		size, source, err := from.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			n.count.ReceiveErrors.Add(1)
			if !n.transport.pause() {
				return
			}
			continue
		}
		n.count.Received.Add(1)
		r.datagram(buf[:size], netip.AddrPortFrom(source.Addr().Unmap(), source.Port()))
	}
}

// datagram takes one datagram from its source to Deliver or to memberlist. It checks the
// source first, because that costs nothing: so strangers cost no decryption. It does not
// check the source port, which is not configured.
func (r *receiver) datagram(b []byte, source netip.AddrPort) {
	n := r.n
	d := n.directory()
	owner := d.owners[source.Addr()]
	if owner == nil {
		n.count.WrongSource.Add(1)
		return
	}
	plain, err := d.sealer.open(r.plain, b)
	switch {
	case err == errWrongLabel:
		n.count.WrongLabel.Add(1)
	case err == errWrongKey:
		n.count.WrongKey.Add(1)
		owner.wrongKey.Add(1)
	case err != nil || len(plain) == 0:
		n.count.Garbage.Add(1)
	default:
		owner.opened.Add(1)
		if plain[0] != userMessage {
			n.transport.pass(b, source)
		} else {
			r.message(plain[1:], d, owner)
		}
	}
}

func (r *receiver) message(b []byte, d *directory, owner *peer) {
	n := r.n
	p, err := r.known.Decode(b)
	if err != nil {
		n.count.Garbage.Add(1)
		return
	}
	switch sender := d.peers[p.From]; {
	case p.From == n.self:
		n.count.Self.Add(1)
	case sender == nil:
		n.count.UnknownSender.Add(1)
	case sender != owner:
		n.count.WrongSource.Add(1)
	case p.Keys != nil:
		r.keys(p, owner)
	case p.Msg == nil:
		r.hello(p.Header, owner)
	default:
		r.numbered(p, owner)
	}
}

func (r *receiver) hello(h Header, from *peer) {
	n := r.n
	n.mu.Lock()
	v, news, owed := n.guard.Greet(h)
	n.mu.Unlock()
	if v != Fresh {
		n.count.verdict(v, false)
		return
	}
	n.count.Hellos.Add(1)
	if news || owed {
		r.greet(from, owed)
	}
}

func (r *receiver) numbered(p Packet, from *peer) {
	n := r.n
	v := n.judge(p, len(from.paths) > 1)
	switch v {
	case Adopted:
		r.greet(from, false) // what we sent before may have failed: it lacked the echo of the peer's nonce
	case Unproven:
		r.greet(from, true)
	}
}

// judge delivers the packet if it is fresh. It holds order from the verdict to the
// delivery. Each local address has its own receiver; without order, one receiver could
// deliver a newer ask before an older one that another receiver has already judged. order
// is a separate lock, so that sending never waits for Deliver.
func (n *Network) judge(p Packet, twoPaths bool) Verdict {
	n.order.Lock()
	defer n.order.Unlock()
	n.mu.Lock()
	var v Verdict
	if p.Relayed {
		var overtaken bool
		if v, overtaken = n.guard.AcceptRelayed(p.Header, newestOnly(p.Msg)); overtaken {
			p.Msg = nil
		}
	} else {
		v = n.guard.Accept(p.Header, newestOnly(p.Msg))
	}
	n.mu.Unlock()
	if v != Fresh && v != Adopted {
		n.count.verdict(v, twoPaths)
		return v
	}
	n.count.Accepted.Add(1)
	n.deliver(elect.Received{From: p.From, Instance: p.Instance, Seq: p.Seq, Msg: p.Msg, Relayed: p.Relayed})
	return v
}
