package member

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"

	"sipalive/elect"
	"sipalive/platform/stalltest"
)

func TestThreeNodesTalk(t *testing.T) {
	port := freePort(t)
	nodes := []*node{start(t, config(1, port)), start(t, config(2, port)), start(t, config(3, port))}
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			meetUp(t, a, b)
		}
	}
	want := filled(elect.Heartbeat{}, &nonZero{})
	nodes[0].mustSend(t, "pbx3", 1000, want)
	got := nodes[2].next(t)
	if diff := cmp.Diff(want, got.Msg); diff != "" || got.From != "pbx1" || got.Seq != 1000 || got.Instance == 0 {
		t.Errorf("packet %d of %s, instance %d (-sent +received):\n%s", got.Seq, got.From, got.Instance, diff)
	}
	for _, n := range nodes {
		eventually(t, "gossip shows all", func() bool { return slices.Equal(n.Members(), []string{"pbx1", "pbx2", "pbx3"}) })
		if c := n.Counters(); c.Garbage+c.WrongKey+c.WrongSource+c.UnknownSender+c.SendErrors+c.StreamsRefused > 0 {
			t.Errorf("%s dropped something: %+v", n.self, c)
		}
	}
}

// notes is a delegate for a stock memberlist that keeps the user messages.
type notes chan []byte

func (n notes) NodeMeta(int) []byte             { return nil }
func (n notes) NotifyMsg(b []byte)              { n <- slices.Clone(b) }
func (n notes) GetBroadcasts(int, int) [][]byte { return nil }
func (n notes) LocalState(bool) []byte          { return nil }
func (n notes) MergeRemoteState([]byte, bool)   {}

func TestStockMemberlistReadsUs(t *testing.T) {
	port := freePort(t)
	heard := make(notes, 10)
	stock(t, 2, port, heard)
	a := start(t, config(1, port))
	a.mustSend(t, "pbx2", 5, elect.Released{VIP: "192.0.2.101", Epoch: 9})
	for deadline := time.After(10 * time.Second); ; {
		select {
		case b := <-heard:
			p, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if p.Msg == nil {
				continue // the hello from the start
			}
			if want := (elect.Released{VIP: "192.0.2.101", Epoch: 9}); p.Msg != want || p.Seq != 5 || p.To != "pbx2" {
				t.Errorf("got %+v", p)
			}
			return
		case <-deadline:
			t.Fatal("stock memberlist heard nothing")
		}
	}
}

func TestWeReadStockMemberlist(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	heard := make(notes, 10)
	l := stock(t, 2, port, heard)
	g := NewGuard("pbx2", 77, shared)
	send := func(seq elect.Seq, m elect.Message) {
		to := memberlist.Address{Addr: netip.AddrPortFrom(addr(1), port).String()}
		if err := l.SendToAddress(to, mustEncode(t, Packet{Header: g.Stamp("pbx1", seq), Msg: m})); err != nil {
			t.Fatal(err)
		}
	}
	send(0, nil)
	select {
	case b := <-heard:
		p, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		g.Greet(p.Header)
	case <-time.After(10 * time.Second):
		t.Fatal("no hello")
	}
	send(6, elect.Released{VIP: "x", Epoch: 1})
	a.hear(t, "pbx2", 6)
}

func TestRestartInItsInstanceIsHeardAtOnce(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	a, b := start(t, cfg), start(t, config(2, port))
	seq := meetUp(t, a, b)
	b.mustSend(t, "pbx1", seq, elect.Heartbeat{})
	a.hear(t, "pbx2", seq)
	a.stop(t)
	unproven := b.Counters().Unproven
	a = start(t, cfg)
	a.mustSend(t, "pbx2", 5000, elect.Released{VIP: "x"})
	b.hear(t, "pbx1", 5000)
	if n := b.Counters().Unproven; n != unproven {
		t.Errorf("%d packets of the restarted node had no effect", n-unproven)
	}
	// The restarted node hears the other one within a round trip, before the next
	// heartbeat: the last heartbeat is repeated with the echo that it needs.
	a.hear(t, "pbx2", seq)
}

func TestNewInstanceIsHeardWithinARoundTrip(t *testing.T) {
	port := freePort(t)
	a, b := start(t, config(1, port)), start(t, config(2, port))
	seq := meetUp(t, a, b)
	a.stop(t)
	b.mustSend(t, "pbx1", seq, elect.Heartbeat{})
	a = start(t, config(1, port)) // a reboot: another instance
	a.mustSend(t, "pbx2", 1, elect.Heartbeat{})
	b.hear(t, "pbx1", 1) // the only packet that it sends unasked
	a.hear(t, "pbx2", seq)
}

// TestLostHello: an instance that is first heard by a numbered packet gets our nonce at
// once.
func TestLostHello(t *testing.T) {
	port := freePort(t)
	a := start(t, config(1, port))
	p := play(t, 2, port, 9, key)
	p.write(p.packet("pbx1", 1, elect.Released{VIP: "x"}), 1)
	if answer := p.read(); answer.Seq != 0 || answer.Echo == 0 {
		t.Errorf("answered with %+v", answer)
	}
	p.write(p.packet("pbx1", 2, elect.Released{VIP: "x"}), 1)
	a.hear(t, "pbx2", 2)

	boot := NewGuard("pbx2", 10, shared)
	p.guard = boot
	hello := p.packet("pbx1", 0, nil)
	for range 2 { // twice: the first answer may have been lost
		p.write(hello, 1)
		for answer := p.read(); answer.Echo != boot.peers["pbx1"].nonce; answer = p.read() {
		}
	}
}

// TestTwoReceiversKeepTheOrder: a packet that arrives at one address is not delivered
// before every packet judged earlier at the other address.
func TestTwoReceiversKeepTheOrder(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	cfg.SelfAddress2 = addr(11)
	began, release := make(chan elect.Seq, 2), make(chan struct{})
	cfg.Deliver = func(r elect.Received) {
		began <- r.Seq
		<-release
	}
	n, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { (&node{Network: n}).stop(t) })
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	p := play(t, 2, port, 9, key)
	p.greet(1)
	p.write(p.packet("pbx1", 1, elect.Heartbeat{}), 1)
	if seq := <-began; seq != 1 {
		t.Fatalf("packet %d delivered", seq)
	}
	arrived := n.Counters().Received
	p.write(p.packet("pbx1", 2, elect.Heartbeat{}), 11)
	eventually(t, "the second packet is read", func() bool { return n.Counters().Received > arrived })
	select {
	case seq := <-began:
		t.Errorf("packet %d delivered while packet 1 still was", seq)
	case <-time.After(100 * time.Millisecond):
	}
	free()
	select {
	case seq := <-began:
		if seq != 2 {
			t.Errorf("packet %d delivered", seq)
		}
	case <-time.After(10 * time.Second):
		t.Error("the second packet is lost")
	}
}

func TestGossipGoesToPeersOnly(t *testing.T) {
	a := start(t, config(1, freePort(t)))
	tr := a.transport
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(addr(4), tr.port), netip.AddrPortFrom(addr(2), tr.port+1), netip.AddrPortFrom(addr(1), tr.port),
	} {
		if _, err := tr.WriteTo([]byte{0}, to.String()); err == nil {
			t.Errorf("sent to %s", to)
		}
		if _, err := tr.DialTimeout(to.String(), time.Second); err == nil || !strings.Contains(err.Error(), "no peer") {
			t.Errorf("dial %s: %v", to, err)
		}
	}
	if _, err := tr.WriteTo([]byte{0}, netip.AddrPortFrom(addr(2), tr.port).String()); err != nil {
		t.Error(err)
	}
}

func TestSendRefuses(t *testing.T) {
	a := start(t, config(1, freePort(t)))
	for what, out := range map[string]elect.Outgoing{
		"stranger":      {To: "pbx9", Seq: 1, Msg: elect.Heartbeat{}},
		"ourselves":     {To: "pbx1", Seq: 1, Msg: elect.Heartbeat{}},
		"no number":     {To: "pbx2", Msg: elect.Heartbeat{}},
		"no message":    {To: "pbx2", Seq: 1},
		"out of bounds": {To: "pbx2", Seq: 1, Msg: elect.Ask{Lease: -1}},
	} {
		if err := a.Send(out); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPeersThatAreDownAreNoError(t *testing.T) {
	a := start(t, config(1, freePort(t)))
	for seq := range elect.Seq(200) {
		a.mustSend(t, "pbx2", seq+1, elect.Heartbeat{})
		a.mustSend(t, "pbx3", seq+1, elect.Heartbeat{})
	}
	if c := a.Counters(); c.SendErrors+c.ReceiveErrors > 0 || c.Sent < 400 {
		t.Errorf("%+v", c)
	}
}

// TestSendWaitsForNobody: Send does not wait for memberlist's writes to the same socket,
// which hold its write lock while they wait, nor for Deliver.
func TestSendWaitsForNobody(t *testing.T) {
	port := freePort(t)
	release := make(chan struct{})
	cfg := config(1, port)
	delivering := make(chan struct{}, 100)
	cfg.Deliver = func(elect.Received) { delivering <- struct{}{}; <-release }
	n, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := &node{Network: n}
	t.Cleanup(func() { a.stop(t) })
	t.Cleanup(func() { close(release) })

	p := play(t, 2, port, 9, key)
	p.greet(1)
	p.write(p.packet("pbx1", 1, elect.Heartbeat{}), 1)
	select {
	case <-delivering:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing delivered")
	}
	locked, unlock := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(unlock) })
	go a.transport.paths[0].raw.Write(func(uintptr) bool {
		close(locked)
		<-unlock
		return true
	})
	<-locked
	sent := make(chan error, 1)
	go func() { sent <- a.Send(elect.Outgoing{To: "pbx2", Seq: 1, Msg: elect.Heartbeat{}}) }()
	select {
	case err := <-sent:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Send hangs")
	}
	if got := a.Counters().Sent; got < 2 {
		t.Errorf("%d datagrams sent", got)
	}
}

func TestSecondAddress(t *testing.T) {
	port := freePort(t)
	two := func(i int) Config {
		cfg := config(i, port)
		cfg.SelfAddress2 = addr(i + 10)
		for j := range cfg.Peers {
			cfg.Peers[j].Address2 = netip.AddrFrom4([4]byte{127, 0, 77, cfg.Peers[j].Address.As4()[3] + 10})
		}
		return cfg
	}
	a, b := start(t, two(1)), start(t, two(2))
	seq := meetUp(t, a, b)
	before := b.Counters()
	for i := range elect.Seq(50) {
		a.mustSend(t, "pbx2", seq+i, elect.Heartbeat{})
		b.hear(t, "pbx1", seq+i)
	}
	eventually(t, "the copies are counted", func() bool { return b.Counters().Duplicate >= before.Duplicate+50 })
	b.silent(t)
	if c := b.Counters(); c.Replayed > before.Replayed+5 { // a repeat from the start may still have been under way
		t.Errorf("copies by the second path counted as replays: %d", c.Replayed-before.Replayed)
	}
}

func TestSecondAddressAlone(t *testing.T) {
	port := freePort(t)
	wired := func(i, peer int) Config {
		cfg := config(i, port)
		cfg.SelfAddress2 = addr(i + 10)
		// The first path leads nowhere.
		cfg.Peers = []Peer{{Name: nodeName(peer), Address: addr(100 + peer), Address2: addr(peer + 10)}}
		return cfg
	}
	a, b := start(t, wired(1, 2)), start(t, wired(2, 1))
	meetUp(t, a, b)
}

func TestRejoin(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	cfg.Rejoin, cfg.probe = 50*time.Millisecond, 50*time.Millisecond
	a := start(t, cfg)
	shows := func(names ...string) {
		t.Helper()
		eventually(t, "gossip shows "+strings.Join(names, " "), func() bool { return slices.Equal(a.Members(), names) })
	}
	shows("pbx1")
	b := stock(t, 2, port, nil) // joins nobody on its own
	shows("pbx1", "pbx2")
	b.Shutdown()
	shows("pbx1")
	stock(t, 2, port, nil)
	shows("pbx1", "pbx2")
	if c := a.Counters(); c.Joins < 2 || c.JoinsFailed == 0 {
		t.Errorf("not counted: %+v", c)
	}
}

func TestGossipKeepsStrangersOut(t *testing.T) {
	port := freePort(t)
	cfg := config(1, port)
	cfg.Rejoin = 20 * time.Millisecond
	a := start(t, cfg)
	stockNamed(t, "pbx9", 2, port, nil)
	eventually(t, "the stranger is refused", func() bool { return strings.Contains(a.LastGossipLine(), `"pbx9"`) })
	if m := a.Members(); !slices.Equal(m, []string{"pbx1"}) {
		t.Errorf("members %v", m)
	}
	if a.Counters().GossipWarnings == 0 {
		t.Error("memberlist's warning is not counted")
	}
}

func TestCloseIsBounded(t *testing.T) {
	port := freePort(t)
	// A peer that accepts connections and never answers.
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr(2), port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(10 * time.Second))
	a := start(t, config(1, port))
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stood, began := stalltest.Watch(t), time.Now()
	a.stop(t)
	if took, stood := time.Since(began), stood(); took > time.Second+stood {
		t.Errorf("Close took %s, of which the machine stood still for %s", took, stood)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCountersAreAllCopied(t *testing.T) {
	var c counts
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		v.Field(i).Addr().MethodByName("Store").Call([]reflect.Value{reflect.ValueOf(uint64(i + 1))})
	}
	got := reflect.ValueOf(c.copy())
	if got.NumField() != v.NumField() {
		t.Fatalf("%d counters, %d in the copy", v.NumField(), got.NumField())
	}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; got.FieldByName(name).Uint() != uint64(i+1) {
			t.Errorf("%s is not copied", name)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	port := freePort(t)
	start(t, config(3, port))
	for want, change := range map[string]func(*Config){
		"no key: every packet is encrypted (sipalive keygen makes one)":              func(c *Config) { c.Keys = nil },
		"key 1 has 0 bytes: AES needs 16, 24 or 32 (sipalive keygen makes one)":      func(c *Config) { c.Keys[0] = nil },
		"key 2 has 33 bytes: AES needs 16, 24 or 32 (sipalive keygen makes one)":     func(c *Config) { c.Keys = append(c.Keys, make([]byte, 33)) },
		`cluster name "": must have 1 to 255 bytes, it is the label of every packet`: func(c *Config) { c.Cluster = "" },
		"no port: every node must use the same one":                                  func(c *Config) { c.Port = 0 },
		"no instance: 0 means none":                                                  func(c *Config) { c.Instance = 0 },
		"a source of random numbers and a function to deliver to are needed":         func(c *Config) { c.Random = nil },
		"node pbx2 is there twice":                                                   func(c *Config) { c.Peers[1].Name = "pbx2" },
		"node pbx1 is there twice":                                                   func(c *Config) { c.Peers[0].Name = "pbx1" },
		"address 127.0.77.2 is both pbx2's and pbx3's":                               func(c *Config) { c.Peers[1].Address = addr(2) },
		"address 127.0.77.1 is both pbx1's and pbx1's":                               func(c *Config) { c.SelfAddress2 = addr(1) },
		"address 0.0.0.0 of node pbx1: must be one plain unicast address":            func(c *Config) { c.SelfAddress = netip.IPv4Unspecified() },
		"address invalid IP of node pbx2: must be one plain unicast address":         func(c *Config) { c.Peers[0].Address = netip.Addr{} },
		"pbx1 has 127.0.77.1 and pbx2 has ::1: no path between IPv4 and IPv6":        func(c *Config) { c.Peers[0].Address = netip.IPv6Loopback() },
		"node name \"a\\nb\": must have 1 to 63 printable bytes":                     func(c *Config) { c.Peers[0].Name = "a\nb" },
	} {
		cfg := config(1, port)
		cfg.Deliver = func(elect.Received) {}
		change(&cfg)
		n, err := Start(cfg)
		if err == nil {
			n.Close()
			t.Errorf("started; want %s", want)
		} else if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	}
}

func TestBindErrors(t *testing.T) {
	port := freePort(t)
	start(t, config(3, port))
	for address, want := range map[netip.Addr]string{
		addr(3):                          "bind udp 127.0.77.3:PORT: address already in use (does another agent run here?)",
		netip.MustParseAddr("192.0.2.1"): "bind udp 192.0.2.1:PORT: cannot assign requested address (is the address on this machine?)",
	} {
		cfg := config(1, port)
		cfg.Deliver = func(elect.Received) {}
		cfg.Peers = nil
		cfg.SelfAddress2 = address
		_, err := Start(cfg)
		want = strings.Replace(want, "PORT", strconv.Itoa(int(port)), 1)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
