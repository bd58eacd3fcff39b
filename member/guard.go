package member

import "sipalive/elect"

// Guard decides which packets are fresh (§4.2). It is pure: no clock, no I/O, no lock.
// Only one goroutine may use it at a time.
//
// For each peer the guard gives out one random nonce. It keeps that nonce until an
// instance of the peer becomes current by echoing it, and then gives out another. An
// instance that is not current counts only with that nonce. So
//   - a packet recorded before this guard was made never counts: it echoes a nonce of an
//     earlier guard. So a restart needs no memory of peers;
//   - a packet of an old instance never counts once a new one is current: it echoes a nonce
//     that has been replaced.
//
// Within the current instance the sequence alone decides, and no echo is needed. An agent
// that restarts in its instance goes on above its stored bound and is accepted at once.
//
// A packet that makes an instance current must be numbered, never a hello. Everything up
// to its number is then refused, so no older packet counts.
//
// The memory of retired instances is bounded. An instance that falls out of it cannot
// come back by replay, because of the nonce. Only a live agent with the key could echo
// the new nonce, and that agent could as well invent a new instance.
type Guard struct {
	self     elect.Node
	instance elect.Instance
	random   func() uint64
	peers    map[elect.Node]*remote
}

// remote is what the guard knows about one peer.
type remote struct {
	nonce   uint64         // ours, for the peer to echo
	heard   uint64         // the peer's last one, which we echo
	current elect.Instance // 0: none yet
	window  window
	retired [rememberedInstances]elect.Instance
	next    int // index in retired for the next one
}

// rememberedInstances is how many replaced instances (boots) of a peer the guard can
// still tell from new ones.
const rememberedInstances = 16

// Verdict is the guard's judgement of a packet.
type Verdict uint8

// The verdicts. Only Fresh and Adopted packets have an effect.
const (
	Fresh       Verdict = iota + 1
	Adopted             // fresh, and the first one of a new instance, which is now current
	Duplicate           // the first repeat of a number: the copy by the second path
	Replayed            // a further repeat, overtaken (heartbeats and asks), or too old to know
	Retired             // from an instance that has been replaced
	Unproven            // from an unknown instance that has not echoed our nonce; the sender needs a hello
	Misdirected         // meant for another node
	Own                 // claims to be from this node
)

func (v Verdict) String() string {
	return [...]string{"", "fresh", "adopted", "duplicate", "replayed", "retired", "unproven", "misdirected", "own"}[min(v, Own)]
}

// NewGuard makes the guard of node self in its instance. random gives the
// nonces. They need to be unpredictable only so far that none comes twice.
func NewGuard(self elect.Node, instance elect.Instance, random func() uint64) *Guard {
	return &Guard{self: self, instance: instance, random: random, peers: map[elect.Node]*remote{}}
}

// Stamp returns the header of the next packet to a peer; seq 0 is a hello.
func (g *Guard) Stamp(to elect.Node, seq elect.Seq) Header {
	r := g.peer(to)
	return Header{From: g.self, To: to, Instance: g.instance, Seq: seq, Nonce: r.nonce, Echo: r.heard}
}

// Accept judges a numbered packet. With newest it counts only if nothing newer from its
// sender has been heard. The caller has checked that h.From is a configured node, because
// the guard remembers every name it is asked about.
func (g *Guard) Accept(h Header, newest bool) Verdict {
	if v := g.misplaced(h); v != 0 {
		return v
	}
	if h.Instance == 0 || h.Seq == 0 { // not numbered: Decode lets no such packet through
		return Unproven
	}
	r := g.peer(h.From)
	switch {
	case h.Instance == r.current:
		v := r.window.pass(h.Seq, newest)
		if v == Fresh {
			r.heard = h.Nonce
		}
		return v
	case r.isRetired(h.Instance):
		return Retired
	}
	// Until an instance is current, its packets only exchange nonces.
	r.heard = h.Nonce
	if h.Echo != r.nonce {
		return Unproven
	}
	if r.current != 0 {
		r.retired[r.next%rememberedInstances] = r.current
		r.next++
	}
	r.current = h.Instance
	r.window = from(h.Seq)
	r.nonce = g.draw(r.nonce)
	return Adopted
}

// AcceptRelayed judges a packet that came through the gateway. A packet that the sender
// sent directly may have overtaken it, and while two nodes beat in step that happens each
// time. Then overtaken is true: the packet shows that the gateway relays, but its message
// does not count.
func (g *Guard) AcceptRelayed(h Header, newest bool) (v Verdict, overtaken bool) {
	r := g.peers[h.From]
	overtaken = newest && r != nil && h.Instance == r.current && h.Seq < r.window.highest
	return g.Accept(h, newest && !overtaken), overtaken
}

// Greet handles a hello. news: its nonce is new, so a packet that we sent to the peer
// before may have failed for lack of it. owed: the peer needs our nonce, because its
// instance is unknown and it does not echo our nonce.
func (g *Guard) Greet(h Header) (v Verdict, news, owed bool) {
	if v := g.misplaced(h); v != 0 {
		return v, false, false
	}
	r := g.peer(h.From)
	if h.Instance != r.current && r.isRetired(h.Instance) {
		return Retired, false, false
	}
	news = r.heard != h.Nonce
	r.heard = h.Nonce
	return Fresh, news, h.Instance != r.current && h.Echo != r.nonce
}

func (g *Guard) misplaced(h Header) Verdict {
	switch {
	case h.From == g.self:
		return Own
	case h.To != g.self:
		return Misdirected
	}
	return 0
}

func (g *Guard) peer(n elect.Node) *remote {
	r := g.peers[n]
	if r == nil {
		r = &remote{nonce: g.draw(0)}
		g.peers[n] = r
	}
	return r
}

// draw returns a nonce other than last. It never returns 0, which means none.
func (g *Guard) draw(last uint64) uint64 {
	for {
		if n := g.random(); n != 0 && n != last {
			return n
		}
	}
}

func (r *remote) isRetired(i elect.Instance) bool {
	for _, old := range r.retired {
		if old == i {
			return true
		}
	}
	return false
}

// window remembers which of the last 64 numbers have been heard, once and again. Bit i
// stands for the number highest-i.
type window struct {
	highest elect.Seq
	once    uint64
	again   uint64
}

// from returns a window in which seq has been heard and no older number counts.
func from(seq elect.Seq) window { return window{highest: seq, once: ^uint64(0), again: ^uint64(1)} }

func (w *window) pass(seq elect.Seq, newest bool) Verdict {
	if seq > w.highest {
		by := uint64(seq - w.highest)
		w.once = w.once<<by | 1 // a shift by 64 or more leaves 0
		w.again <<= by
		w.highest = seq
		return Fresh
	}
	back := uint64(w.highest - seq)
	if back >= 64 {
		return Replayed
	}
	bit := uint64(1) << back
	switch {
	case w.once&bit == 0 && newest:
		w.once |= bit // so that its copy by the second path is a duplicate
		return Replayed
	case w.once&bit == 0:
		w.once |= bit
		return Fresh
	case w.again&bit == 0:
		w.again |= bit
		return Duplicate
	}
	return Replayed
}
