package member

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/elect"
)

// TestGarbageFlood sends 10,000 datagrams of each bad kind, from a peer's address and
// from a stranger's. Each is counted, heartbeats arrive meanwhile, and memberlist sees
// none of them.
func TestGarbageFlood(t *testing.T) {
	port := freePort(t)
	a, b := start(t, config(1, port)), start(t, config(2, port))
	seq := meetUp(t, a, b)
	p := playFrom(t, 3, port)
	wrong := playFrom(t, 3, port)
	wrong.sealer, _ = newSealer("test", [][]byte{otherKey})
	label := playFrom(t, 3, port)
	label.sealer, _ = newSealer("another", [][]byte{key})
	stranger := playFrom(t, 4, port)
	hello := func(p *puppet) []byte { return p.packet("pbx1", 0, nil) }
	random := func() []byte {
		d := make([]byte, rand.IntN(3000))
		for i := range d {
			d[i] = byte(rand.Uint32())
		}
		return d
	}
	sorts := []struct {
		name  string
		from  *puppet
		make  func() []byte
		count func(Counters) uint64
	}{
		{"noise", p, func() []byte { return append([]byte{1}, random()...) }, func(c Counters) uint64 { return c.Garbage }},
		{"empty", p, func() []byte { return nil }, func(c Counters) uint64 { return c.Garbage }},
		{"unlabelled gossip", p, func() []byte { return []byte{0, 1, 2} }, func(c Counters) uint64 { return c.Garbage }},
		{"label cut short", p, func() []byte { return []byte{hasLabel, 4, 't', 'e'} }, func(c Counters) uint64 { return c.Garbage }},
		{"sealed with nothing in it", p, func() []byte { return p.sealer.seal(p.sealer.begin(nil)) }, func(c Counters) uint64 { return c.Garbage }},
		{"sealed noise", p, func() []byte { return p.seal(random()) }, func(c Counters) uint64 { return c.Garbage }},
		{"version 0, which panics memberlist", p, func() []byte {
			d := hello(p)
			d[len(p.sealer.prefix)-1] = 0
			return d
		}, func(c Counters) uint64 { return c.Garbage }},
		{"noise behind our label", p, func() []byte {
			return append(append(slices.Clone(p.sealer.prefix), make([]byte, nonceSize+tagSize)...), random()...)
		}, func(c Counters) uint64 { return c.WrongKey }},
		{"wrong key", wrong, func() []byte { return hello(wrong) }, func(c Counters) uint64 { return c.WrongKey }},
		{"wrong label", label, func() []byte { return hello(label) }, func(c Counters) uint64 { return c.WrongLabel }},
		{"one bit flipped", p, func() []byte {
			d := hello(p)
			d[len(p.sealer.prefix)+rand.IntN(len(d)-len(p.sealer.prefix))] ^= 1 << rand.IntN(8)
			return d
		}, func(c Counters) uint64 { return c.WrongKey }},
		{"stranger's address", stranger, func() []byte { return hello(p) }, func(c Counters) uint64 { return c.WrongSource }},
		{"stranger's gossip", stranger, func() []byte {
			b := p.sealer.begin(nil)
			return p.sealer.seal(append(b[:len(b)-1], 0, 1, 2))
		}, func(c Counters) uint64 { return c.WrongSource }},
		{"another node's name", p, func() []byte {
			return p.seal(mustEncode(t, Packet{Header: Header{From: "pbx2", To: "pbx1", Instance: 1, Nonce: 1}}))
		}, func(c Counters) uint64 { return c.WrongSource }},
		{"unknown name", p, func() []byte {
			return p.seal(mustEncode(t, Packet{Header: Header{From: "pbx9", To: "pbx1", Instance: 1, Nonce: 1}}))
		}, func(c Counters) uint64 { return c.UnknownSender }},
		{"our own name", p, func() []byte {
			return p.seal(mustEncode(t, Packet{Header: Header{From: "pbx1", To: "pbx1", Instance: 1, Nonce: 1}}))
		}, func(c Counters) uint64 { return c.Self }},
		{"meant for another", p, func() []byte { return p.packet("pbx2", 0, nil) }, func(c Counters) uint64 { return c.Misdirected }},
	}
	const each, batch = 10_000/17 + 1, 25
	gossip := a.Counters()
	for _, s := range sorts {
		before := a.Counters()
		for sent := 0; sent < each; {
			for range min(batch, each-sent) { // no faster than they are read: all must arrive to be counted
				s.from.write(s.make(), 1)
				sent++
			}
			eventually(t, s.name+" is counted", func() bool { return s.count(a.Counters()) >= s.count(before)+uint64(sent) })
			b.mustSend(t, "pbx1", seq, elect.Heartbeat{})
			a.hear(t, "pbx2", seq)
			seq++
		}
		if got := s.count(a.Counters()) - s.count(before); got != each {
			t.Errorf("%s: %d counted, want %d", s.name, got, each)
		}
	}
	a.silent(t)
	if c := a.Counters(); c.GossipErrors != gossip.GossipErrors || c.ReceiveErrors+c.Unproven != gossip.Unproven {
		t.Errorf("%+v, gossip says %s", c, a.LastGossipLine())
	}
}

// playFrom returns a puppet on a separate port of its node's address. The source port
// does not identify a peer.
func playFrom(t *testing.T, i int, port uint16) *puppet {
	t.Helper()
	p := play(t, i, 0, 5, key)
	p.port = port
	return p
}

func TestNodeWithAnotherKeyIsNotHeard(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		count  func(Counters) uint64
	}{
		"key":   {func(c *Config) { c.Keys = [][]byte{otherKey} }, func(c Counters) uint64 { return c.WrongKey }},
		"label": {func(c *Config) { c.Cluster = "another" }, func(c Counters) uint64 { return c.WrongLabel }},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			a := start(t, config(1, port))
			cfg := config(2, port)
			c.change(&cfg)
			b := start(t, cfg)
			for seq := range elect.Seq(20) {
				b.mustSend(t, "pbx1", seq+1, elect.Heartbeat{})
			}
			eventually(t, "all counted", func() bool { return c.count(a.Counters()) >= 20 })
			a.silent(t)
			if m := a.Members(); !slices.Equal(m, []string{"pbx1"}) {
				t.Errorf("members %v", m)
			}
		})
	}
}

func TestSecondKeyOpens(t *testing.T) {
	port := freePort(t)
	a, b := config(1, port), config(2, port)
	a.Keys, b.Keys = [][]byte{key, otherKey}, [][]byte{otherKey, key}
	meetUp(t, start(t, a), start(t, b))
}

// TestReplay: recorded packets are sent again and again from the right address.
func TestReplay(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	p := play(t, 2, port, 9, key)
	p.greet(1)
	var recorded [][]byte
	for seq := elect.Seq(1); seq <= 100; seq++ {
		var m elect.Message = elect.Heartbeat{}
		if seq%2 == 0 {
			m = elect.Released{VIP: "x"}
		}
		d := p.packet("pbx1", seq, m)
		recorded = append(recorded, d)
		p.write(d, 1)
		a.hear(t, "pbx2", seq)
	}
	replay := func() {
		for _, i := range rand.Perm(len(recorded)) {
			p.write(recorded[i], 1)
		}
	}
	replay()
	a.counted(t, "replays", func(c Counters) uint64 { return c.Replayed }, 100)
	p.write(p.packet("pbx1", 101, elect.Heartbeat{}), 1)
	a.hear(t, "pbx2", 101)

	// The same packets after a restart of this node, which then remembers nothing.
	a.stop(t)
	a = start(t, config(1, port))
	replay()
	a.counted(t, "unproven", func(c Counters) uint64 { return c.Unproven }, 100)
	p.greet(1)
	p.write(p.packet("pbx1", 102, elect.Heartbeat{}), 1)
	a.hear(t, "pbx2", 102)
	replay()
	a.counted(t, "replays after the restart", func(c Counters) uint64 { return c.Replayed }, 100)
	a.silent(t)
}

// TestOldInstanceStaysOut: after a reboot of the peer its old packets are stale,
// including those that were never delivered.
func TestOldInstanceStaysOut(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	old := play(t, 2, port, 9, key)
	old.greet(1)
	old.write(old.packet("pbx1", 1, elect.Heartbeat{}), 1)
	a.hear(t, "pbx2", 1)
	withheld := old.packet("pbx1", 2, elect.Released{VIP: "x"})
	old.conn.Close()
	boot := play(t, 2, port, 10, key)
	boot.greet(1)
	boot.write(boot.packet("pbx1", 1, elect.Heartbeat{}), 1)
	a.hear(t, "pbx2", 1)
	boot.write(withheld, 1)
	boot.write(old.packet("pbx1", 3, elect.Heartbeat{}), 1)
	boot.write(old.packet("pbx1", 0, nil), 1)
	a.counted(t, "stale", func(c Counters) uint64 { return c.StaleInstance }, 3)
	a.silent(t)
}

// TestHellosAreBounded: whatever is replayed, a peer gets at most one greeting per
// helloSpacing.
func TestHellosAreBounded(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	p := play(t, 2, port, 9, key)
	began := time.Now()
	for i := range 500 {
		p.guard = NewGuard("pbx2", elect.Instance(i+1), rand.Uint64)
		p.write(p.packet("pbx1", 1, elect.Heartbeat{}), 1)
	}
	a.counted(t, "unproven", func(c Counters) uint64 { return c.Unproven }, 500)
	atMost := uint64(time.Since(began)/helloSpacing) + helloBurst + 3 // one for the other peer, one at either end
	if n := a.Counters().HellosSent; n > atMost {
		t.Errorf("%d hellos, want at most %d", n, atMost)
	}
}

func TestOnlyAFreshLastAskIsRepeated(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	p := play(t, 2, port, 9, key)
	// answer returns the number of the packet that a sends to a node that has just
	// booted.
	answer := func() elect.Seq {
		t.Helper()
		p.guard = NewGuard("pbx2", elect.Instance(rand.Uint64()|1), rand.Uint64)
		nonce := p.guard.Stamp("pbx1", 0).Nonce
		p.write(p.packet("pbx1", 0, nil), 1)
		for packet := p.read(); ; packet = p.read() {
			if packet.Echo == nonce {
				return packet.Seq
			}
		}
	}
	a.mustSend(t, "pbx2", 1, elect.Heartbeat{})
	if seq := answer(); seq != 1 {
		t.Errorf("packet %d, want the heartbeat again", seq)
	}
	a.mu.Lock()
	a.directory().peers["pbx2"].lastAt = time.Now().Add(-2 * resendWithin)
	a.mu.Unlock()
	if seq := answer(); seq != 0 {
		t.Errorf("packet %d repeated after %s, want a hello", seq, 2*resendWithin)
	}
	a.mustSend(t, "pbx2", 2, elect.Ask{})
	a.mustSend(t, "pbx2", 3, elect.Released{VIP: "x"})
	time.Sleep(helloSpacing) // greetings are limited
	if seq := answer(); seq != 0 {
		t.Errorf("packet %d repeated although it was not the last, want a hello", seq)
	}
}

// TestRecordedStream: a recorded join is refused if its encryption version was changed.
// memberlist does not authenticate that version and may panic on it.
func TestRecordedStream(t *testing.T) {
	port := freePort(t)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr(2), port)))
	if err != nil {
		t.Fatal(err)
	}
	l.SetDeadline(time.Now().Add(10 * time.Second))
	start(t, config(1, port))
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	recorded := make([]byte, 1<<16)
	size := 0
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for want := 1 << 16; size < want; {
		n, err := conn.Read(recorded[size:])
		if err != nil {
			t.Fatal(err)
		}
		if size += n; size > 11 {
			want = 6 + 5 + int(recorded[9])<<8 + int(recorded[10]) // label, type, length
		}
	}
	conn.Close()
	l.Close()
	b := start(t, config(2, port))
	send := func(from int, change func([]byte)) {
		t.Helper()
		d := slices.Clone(recorded[:size])
		change(d)
		dial := net.Dialer{LocalAddr: &net.TCPAddr{IP: addr(from).AsSlice()}}
		c, err := dial.Dial("tcp", netip.AddrPortFrom(addr(2), port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(d)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for buf := make([]byte, 4096); err == nil; {
			_, err = c.Read(buf)
		}
	}
	refused := func(c Counters) uint64 { return c.StreamsRefused }
	send(1, func(d []byte) {})
	b.counted(t, "refused, for nothing", refused, 0)
	send(1, func(d []byte) { d[11] = 0 })
	b.counted(t, "refused, version 0", refused, 1)
	send(1, func(d []byte) { d[2] = 'x' })
	b.counted(t, "refused, another label", refused, 2)
	send(1, func(d []byte) { d[7] = 0xff })
	b.counted(t, "refused, 4 GB", refused, 3)
	send(1, func(d []byte) { d[6] = 6 })
	b.counted(t, "refused, plaintext", refused, 4)
	send(4, func(d []byte) {})
	b.counted(t, "refused, a stranger", refused, 5)
}
