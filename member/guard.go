package member

import "sipalive/elect"

// Guard decides which packets are fresh (§4.2). It is pure: no clock, no I/O,
// no lock; one goroutine at a time.
//
// Per peer it gives out one random nonce and keeps it until an instance of the
// peer becomes current by echoing it; then it gives out another. An instance
// that is not current counts only with that nonce, so
//   - what was recorded before this guard was made never counts after it, for
//     it echoes a nonce of an earlier guard: a restart needs no memory of peers;
//   - what an old instance sent never counts once a new one is current, for it
//     echoes a nonce that has been replaced.
//
// Within the current instance the sequence alone decides, with no echo needed:
// an agent that restarts in its instance goes on above its stored bound and is
// accepted at once.
//
// A packet that makes an instance current must be numbered, never a hello:
// everything up to its number is then refused, so nothing older slips in.
//
// The memory of retired instances is bounded. One that falls out of it cannot
// come back by replay, because of the nonce; only a live agent with the key
// could echo the new one, and that one could as well make up a new instance.
type Guard struct {
	self     elect.Node
	instance elect.Instance
	random   func() uint64
	peers    map[elect.Node]*remote
}

// remote is what the guard knows of one peer.
type remote struct {
	nonce   uint64         // ours, for the peer to echo
	heard   uint64         // the peer's last, which we echo
	current elect.Instance // 0: none yet
	window  window
	retired [rememberedInstances]elect.Instance
	next    int // place in retired for the next one
}

// rememberedInstances is how many boots of a peer are told from new ones while
// this agent runs.
const rememberedInstances = 16

// Verdict is what a packet is worth.
type Verdict uint8

// The verdicts. Only Fresh and Adopted packets have an effect.
const (
	Fresh       Verdict = iota + 1
	Adopted             // fresh, and the first of a new instance, now the current one
	Duplicate           // the first repeat of a number: the second path's copy
	Replayed            // repeated again, overtaken (heartbeats and asks), or too old to tell
	Retired             // of an instance that has been replaced
	Unproven            // of an unknown instance that has not echoed our nonce; the sender needs a hello
	Misdirected         // meant for another node
	Own                 // says it is from this node
)

func (v Verdict) String() string {
	return [...]string{"", "fresh", "adopted", "duplicate", "replayed", "retired", "unproven", "misdirected", "own"}[min(v, Own)]
}

// NewGuard makes the guard of node self in its instance. random gives nonces;
// they have to be unpredictable only so far that none comes twice.
func NewGuard(self elect.Node, instance elect.Instance, random func() uint64) *Guard {
	return &Guard{self: self, instance: instance, random: random, peers: map[elect.Node]*remote{}}
}

// Stamp makes the header of the next packet to a peer; seq 0 is a hello.
func (g *Guard) Stamp(to elect.Node, seq elect.Seq) Header {
	r := g.peer(to)
	return Header{From: g.self, To: to, Instance: g.instance, Seq: seq, Nonce: r.nonce, Echo: r.heard}
}

// Accept judges a numbered packet; newest says that it counts only if nothing
// newer of its sender has been heard. The caller has checked that h.From is a
// configured node: the guard remembers every name it is asked about.
func (g *Guard) Accept(h Header, newest bool) Verdict {
	if v := g.misplaced(h); v != 0 {
		return v
	}
	if h.Instance == 0 || h.Seq == 0 { // not numbered: Decode lets none through
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
	// Until it is current, an instance's packets serve to exchange nonces only.
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

// AcceptRelayed judges a packet that came through the gateway. What its sender
// sent directly may have overtaken it, each time anew while two nodes beat in
// step: then it shows that the gateway relays, and its message does not count.
func (g *Guard) AcceptRelayed(h Header, newest bool) (v Verdict, overtaken bool) {
	r := g.peers[h.From]
	overtaken = newest && r != nil && h.Instance == r.current && h.Seq < r.window.highest
	return g.Accept(h, newest && !overtaken), overtaken
}

// Greet takes a hello. news: its nonce is new, so a packet sent to the peer
// before may have failed for want of it. owed: the peer needs our nonce, since
// its instance is unknown and it does not echo us.
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

// draw returns a nonce other than last, and never 0, which means none.
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

// window remembers which of the last 64 numbers have been heard, once and
// again. Bit i is for the number highest-i.
type window struct {
	highest elect.Seq
	once    uint64
	again   uint64
}

// from opens a window in which seq has been heard and nothing older counts.
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
		w.once |= bit // its copy by the second path is a duplicate
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
