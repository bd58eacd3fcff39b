package member

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"sipalive/elect"
)

var (
	key      = bytes.Repeat([]byte{7}, 32)
	otherKey = bytes.Repeat([]byte{8}, 32)
)

// TestMain checks that nothing is left running. A probe of memberlist may wait for up to
// a second after Close.
func TestMain(m *testing.M) {
	code := m.Run()
	var leak error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if leak = goleak.Find(); leak == nil {
			break
		}
	}
	if leak != nil && code == 0 {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

// freePort returns a port that is free for UDP and TCP on the tests' loopback addresses.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		port := uint16(20000 + rand.IntN(12000))
		free := true
		for i := 1; i <= 4 && free; i++ {
			a := netip.AddrPortFrom(addr(i), port)
			if p, err := openPath(a); err != nil {
				free = false
			} else {
				p.close()
			}
		}
		if free {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// addr returns the i-th node's address; addr(i+10) is its second one.
func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 77, byte(i)}) }

func nodeName(i int) elect.Node { return elect.Node(fmt.Sprint("pbx", i)) }

// node is a Network under test with the messages that it delivered.
type node struct {
	*Network
	in chan elect.Received
}

// config returns the configuration of node i of three, with its own random source.
func config(i int, port uint16) Config {
	cfg := Config{
		Cluster: "test", Keys: [][]byte{key}, Port: port, Self: nodeName(i), SelfAddress: addr(i),
		Instance: elect.Instance(rand.Uint64() | 1), Random: rand.Uint64,
	}
	for j := 1; j <= 3; j++ {
		if j != i {
			cfg.Peers = append(cfg.Peers, Peer{Name: nodeName(j), Address: addr(j)})
		}
	}
	return cfg
}

func start(t testing.TB, cfg Config) *node {
	t.Helper()
	n := &node{in: make(chan elect.Received, 1000)}
	cfg.Deliver = func(r elect.Received) { n.in <- r }
	var err error
	if n.Network, err = Start(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *node) stop(t testing.TB) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// mustSend sends m and fails on an error.
func (n *node) mustSend(t testing.TB, to elect.Node, seq elect.Seq, m elect.Message) {
	t.Helper()
	if err := n.Send(elect.Outgoing{To: to, Seq: seq, Msg: m}); err != nil {
		t.Fatal(err)
	}
}

// next returns the next message delivered.
func (n *node) next(t testing.TB) elect.Received {
	t.Helper()
	select {
	case r := <-n.in:
		return r
	case <-time.After(10 * time.Second):
		t.Fatalf("%s heard nothing for 10 s: %+v", n.self, n.Counters())
		return elect.Received{}
	}
}

// hear waits for packet seq from a node and fails on any other packet.
func (n *node) hear(t testing.TB, from elect.Node, seq elect.Seq) {
	t.Helper()
	if r := n.next(t); r.From != from || r.Seq != seq {
		t.Fatalf("%s heard packet %d of %s, want %d of %s", n.self, r.Seq, r.From, seq, from)
	}
}

func (n *node) silent(t testing.TB) {
	t.Helper()
	select {
	case r := <-n.in:
		t.Fatalf("%s took packet %d of %s", n.self, r.Seq, r.From)
	default:
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

// counted waits until a counter has risen to want, and fails if it rises further.
func (n *node) counted(t testing.TB, what string, get func(Counters) uint64, want uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s of %d", what, want), func() bool { return get(n.Counters()) >= want })
	if got := get(n.Counters()); got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

// meetUp sends heartbeats both ways until each node has heard the other. It returns the
// next free sequence number.
func meetUp(t testing.TB, a, b *node) elect.Seq {
	t.Helper()
	return meetUpFrom(t, a, b, 1)
}

// meetUpFrom is meetUp for nodes that have already used numbers below seq.
func meetUpFrom(t testing.TB, a, b *node, seq elect.Seq) elect.Seq {
	t.Helper()
	var heardA, heardB bool
	eventually(t, fmt.Sprintf("%s and %s hear each other", a.self, b.self), func() bool {
		a.mustSend(t, b.self, seq, elect.Heartbeat{})
		b.mustSend(t, a.self, seq, elect.Heartbeat{})
		seq++
		for wait := time.After(20 * time.Millisecond); !heardA || !heardB; {
			select {
			case <-a.in:
				heardB = true
			case <-b.in:
				heardA = true
			case <-wait:
				return false
			}
		}
		return true
	})
	a.flush(t, b, seq)
	b.flush(t, a, seq)
	return seq + 1
}

// flush sends one message and waits for it, so that no older packet is under way.
func (n *node) flush(t testing.TB, to *node, seq elect.Seq) {
	t.Helper()
	n.mustSend(t, to.self, seq, elect.Heartbeat{})
	for r := to.next(t); r.Seq != seq || r.From != n.self; r = to.next(t) {
	}
}

// puppet is a node played by the test. It sees and keeps every datagram.
type puppet struct {
	t      testing.TB
	conn   *net.UDPConn
	guard  *Guard
	sealer *sealer
	port   uint16
}

// play plays node i, from any port of its address.
func play(t testing.TB, i int, port uint16, instance elect.Instance, k []byte) *puppet {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(i), port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s, err := newSealer("test", [][]byte{k})
	if err != nil {
		t.Fatal(err)
	}
	return &puppet{t, conn, NewGuard(nodeName(i), instance, rand.Uint64), s, port}
}

func (p *puppet) packet(to elect.Node, seq elect.Seq, m elect.Message) []byte {
	p.t.Helper()
	return p.seal(mustEncode(p.t, Packet{Header: p.guard.Stamp(to, seq), Msg: m}))
}

func (p *puppet) seal(payload []byte) []byte {
	return p.sealer.seal(append(p.sealer.begin(nil), payload...))
}

func (p *puppet) write(b []byte, to int) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(addr(to), p.port)); err != nil {
		p.t.Fatal(err)
	}
}

// read waits for the next packet from our agent and learns its nonce.
func (p *puppet) read() Packet {
	p.t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	for {
		size, err := p.conn.Read(buf)
		if err != nil {
			p.t.Fatal(err)
		}
		plain, err := p.sealer.open(nil, buf[:size])
		if err != nil || plain[0] != userMessage {
			continue
		}
		packet, err := Decode(plain[1:])
		if err != nil {
			p.t.Fatal(err)
		}
		if packet.Msg == nil {
			p.guard.Greet(packet.Header)
		} else {
			p.guard.Accept(packet.Header, newestOnly(packet.Msg))
		}
		return packet
	}
}

// greet does a handshake with the named node i, as a new instance.
func (p *puppet) greet(i int) {
	p.t.Helper()
	p.write(p.packet(nodeName(i), 0, nil), i)
	for packet := p.read(); packet.From != nodeName(i); packet = p.read() {
	}
}

// stock starts an unmodified memberlist on node i's address.
func stock(t testing.TB, i int, port uint16, d memberlist.Delegate) *memberlist.Memberlist {
	t.Helper()
	return stockNamed(t, string(nodeName(i)), i, port, d)
}

func stockNamed(t testing.TB, name string, i int, port uint16, d memberlist.Delegate) *memberlist.Memberlist {
	t.Helper()
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.SecretKey = name, "test", key
	c.BindAddr, c.BindPort, c.AdvertisePort = addr(i).String(), int(port), int(port)
	c.Logger = log.New(io.Discard, "", 0)
	c.Delegate = d
	c.AwarenessMaxMultiplier = 1
	c.TCPTimeout = time.Second
	l, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Shutdown() })
	return l
}
