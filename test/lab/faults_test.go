package lab

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCutSilencesAndRestoreHeals(t *testing.T) {
	l := newLab(t, Options{})
	node := l.Node(0)
	serve(t, node)
	o, err := l.Phone().ObserveSIP(sip(node.Addr), 0)
	must(t, err)
	answered(t, o)

	begin := Now()
	must(t, l.Cut(node))
	cut := Now()
	within(t, 5*time.Second, "twenty lost questions", func() error {
		if r := o.Report(cut, Now()-5*time.Millisecond); r.Lost < 20 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	if r := o.Report(cut, Now()); r.Answered > 0 {
		t.Errorf("%d questions answered after the cut", r.Answered)
	}
	if p, _ := o.Last(); p.Sent < begin-200*time.Millisecond {
		t.Errorf("silent %v before the cut", begin-p.Sent)
	}
	if !running(t, node) {
		t.Error("a silent cut took the carrier away")
	}

	must(t, l.Restore(node))
	restored := Now()
	answered(t, o)
	r := o.Report(restored, 0)
	t.Logf("cut took %v; after restore, first answer to a question of %v later", cut-begin, firstAnswer(o, restored)-restored)
	if r.Answered == 0 {
		t.Errorf("after restore: %v", r)
	}
	must(t, l.Restore(node)) // no error when not cut
	if err := l.Cut(l.Phone()); err == nil || !strings.Contains(err.Error(), "behind the router") {
		t.Errorf("cut of the phone: %v", err)
	}
}

func firstAnswer(o *SIPObserver, since time.Duration) time.Duration {
	for _, p := range o.Pings(since, 0) {
		if p.RTT > 0 {
			return p.Sent
		}
	}
	return 0
}

// running reports whether a host's kernel says that its eth0 has a carrier.
func running(t *testing.T, h *Host) bool {
	t.Helper()
	link, err := h.ns.route.LinkByName(nic)
	must(t, err)
	if link.Attrs().Flags&net.FlagUp == 0 {
		t.Fatalf("%s of %s is not even up", nic, h.Name)
	}
	return link.Attrs().RawFlags&unix.IFF_RUNNING != 0
}

func TestPulledCableTakesTheCarrier(t *testing.T) {
	l := newLab(t, Options{})
	node := l.Node(1)
	echo := listen(t, node, 7, true)
	conn := dial(t, l.Node(0), echo.addr)
	if !running(t, node) || !reaches(conn, 5*time.Second) {
		t.Fatal("no link to begin with")
	}
	begin := Now()
	must(t, l.PullCable(node))
	within(t, 5*time.Second, "the node to see no carrier", func() error { return want(running(t, node), false) })
	t.Logf("carrier loss seen within %v", Now()-begin)
	if reaches(conn, 200*time.Millisecond) {
		t.Error("frames pass a pulled cable")
	}

	begin = Now()
	must(t, l.PlugCable(node))
	within(t, 5*time.Second, "the node to see a carrier", func() error { return want(running(t, node), true) })
	if !reaches(conn, 10*time.Second) {
		t.Error("no frames after plugging in")
	}
	t.Logf("plugged in and reached within %v", Now()-begin)

	// A cut port stays cut whatever happens to its cable.
	must(t, l.Cut(node))
	must(t, l.PullCable(node))
	must(t, l.PlugCable(node))
	within(t, 5*time.Second, "a carrier again", func() error { return want(running(t, node), true) })
	if reaches(conn, 1500*time.Millisecond) { // the kernel's link watch comes within a second
		t.Error("a cut port forwards after its cable was plugged in")
	}
	must(t, l.Heal())
	if !reaches(conn, 10*time.Second) {
		t.Error("Heal did not heal a cut")
	}
}

func want[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func TestSeverCutsOnePairOnly(t *testing.T) {
	l := newLab(t, Options{})
	a, b, c := l.Node(0), l.Node(1), l.Node(2)
	at, bt := listen(t, a, 7, true), listen(t, b, 7, true)
	ab, ba, cb, pb, pa := dial(t, a, bt.addr), dial(t, b, at.addr), dial(t, c, bt.addr), dial(t, l.Phone(), bt.addr), dial(t, l.Phone(), at.addr)
	if !reaches(ab, 5*time.Second) {
		t.Fatal("no link to begin with")
	}
	must(t, l.Sever(a, b))
	if reaches(ab, 200*time.Millisecond) || reaches(ba, 200*time.Millisecond) {
		t.Error("severed hosts reach each other")
	}
	if !reaches(cb, 5*time.Second) || !reaches(pb, 5*time.Second) || !reaches(pa, 5*time.Second) {
		t.Error("severing two hosts cut off a third")
	}
	must(t, l.Mend(b, a))
	if !reaches(ab, 5*time.Second) {
		t.Error("Mend did not mend")
	}
	must(t, l.Sever(a, b))
	must(t, l.Heal())
	if !reaches(ab, 5*time.Second) {
		t.Error("Heal did not heal")
	}
	if err := l.Sever(a, l.Phone()); err == nil || !strings.Contains(err.Error(), "name the router") {
		t.Errorf("sever from the phone: %v", err)
	}
}

func TestOneWayDropsOneDirection(t *testing.T) {
	l := newLab(t, Options{})
	a, b := l.Node(0), l.Node(1)
	at, bt := listen(t, a, 7, true), listen(t, b, 7, true)
	ab, ba := dial(t, a, bt.addr), dial(t, b, at.addr)
	if !reaches(ab, 5*time.Second) || !reaches(ba, 5*time.Second) { // so that each knows the other's MAC
		t.Fatal("no link to begin with")
	}
	must(t, l.OneWay(a, b))
	fromA, fromB := bt.count.Load(), at.count.Load()
	flood(t, ab, 100)
	flood(t, ba, 100)
	within(t, 5*time.Second, "what b sends to arrive at a", func() error { return want(at.count.Load()-fromB, 100) })
	if n := bt.count.Load() - fromA; n != 0 {
		t.Errorf("%d of 100 datagrams passed the blocked way", n)
	}
}

func TestLossIsWhatWasAskedFor(t *testing.T) {
	l := newLab(t, Options{})
	a, b, c := l.Node(0), l.Node(1), l.Node(2)
	target, other := listen(t, b, 7, true), listen(t, c, 7, true)
	ab, ac := dial(t, a, target.addr), dial(t, a, other.addr)
	if !reaches(ab, 5*time.Second) || !reaches(ac, 5*time.Second) {
		t.Fatal("no link to begin with")
	}
	const sent = 2000
	for _, c := range []struct {
		name     string
		set      func() error
		ab, ac   float64 // percent lost
		tolerate float64
	}{
		{"none", func() error { return nil }, 0, 0, 0},
		{"20 % everywhere", func() error { return l.Loss(20) }, 20, 20, 5},
		{"50 % everywhere instead", func() error { return l.Loss(50) }, 50, 50, 5},
		{"none again", func() error { return l.Loss(0) }, 0, 0, 0},
		{"30 % between two", func() error { return l.LossBetween(b, a, 30) }, 30, 0, 5},
		{"10 % everywhere on top", func() error { return l.Loss(10) }, 37, 10, 5},
		{"all between two", func() error { return l.LossBetween(a, b, 100) }, 100, 10, 5},
		{"healed", l.Heal, 0, 0, 0},
	} {
		must(t, c.set())
		for _, way := range []struct {
			name string
			conn *net.UDPConn
			at   *sink
			want float64
		}{{"a to b", ab, target, c.ab}, {"a to c", ac, other, c.ac}} {
			before := way.at.count.Load()
			flood(t, way.conn, sent)
			lost := 0.0
			within(t, 5*time.Second, fmt.Sprintf("%s, %s: %v %% ± %v lost", c.name, way.name, way.want, c.tolerate), func() error {
				lost = 100 - float64(way.at.count.Load()-before)*100/sent
				if lost < way.want-c.tolerate || lost > way.want+c.tolerate {
					return fmt.Errorf("%.1f %% lost", lost)
				}
				return nil
			})
			t.Logf("%s, %s: %.1f %% lost, %v %% asked for", c.name, way.name, lost, way.want)
		}
	}
	if err := l.Loss(101); err == nil {
		t.Error("a loss of 101 % was accepted")
	}
}

func TestBlockPicksPortAndProtocol(t *testing.T) {
	l := newLab(t, Options{})
	a, b := l.Node(0), l.Node(1)
	sipSide, other := listen(t, b, 5060, true), listen(t, b, 5061, true)
	a5060, a5061, phone := dial(t, a, sipSide.addr), dial(t, a, other.addr), dial(t, l.Phone(), sipSide.addr)
	if !reaches(a5060, 5*time.Second) {
		t.Fatal("no link to begin with")
	}
	match := Match{From: a, To: b, Protocol: unix.IPPROTO_UDP, Port: 5060}
	must(t, l.Block(match))
	if reaches(a5060, 200*time.Millisecond) {
		t.Error("the blocked port answers")
	}
	if !reaches(a5061, 5*time.Second) || !reaches(phone, 5*time.Second) {
		t.Error("another port or another host is blocked too")
	}
	must(t, l.Unblock(match))
	if !reaches(a5060, 5*time.Second) {
		t.Error("Unblock did not unblock")
	}

	// From b, the block drops only the answers, by their source port.
	must(t, l.Block(Match{From: b, Protocol: unix.IPPROTO_UDP, Port: 5060}))
	before := sipSide.count.Load()
	if reaches(a5060, 200*time.Millisecond) || reaches(phone, 200*time.Millisecond) {
		t.Error("answers from the blocked port arrive")
	}
	if sipSide.count.Load() == before {
		t.Error("questions to the port were blocked, not its answers")
	}
	must(t, l.Heal())

	// Block requests only: an answer has the port as its source.
	requests := Match{From: b, To: a, Protocol: unix.IPPROTO_UDP, Port: 5060, ToPort: true}
	must(t, l.Block(requests))
	if !reaches(a5060, 5*time.Second) {
		t.Error("an answer was taken for a request")
	}
	must(t, l.Block(Match{From: a, To: b, Protocol: unix.IPPROTO_UDP, Port: 5060, ToPort: true}))
	before = sipSide.count.Load()
	if reaches(a5060, 200*time.Millisecond) || sipSide.count.Load() != before {
		t.Error("requests to the blocked port arrive")
	}
	must(t, l.Heal())

	both := Match{From: b, To: a, BothWays: true, Protocol: unix.IPPROTO_UDP, Port: 5060}
	must(t, l.Block(both))
	before = sipSide.count.Load()
	if reaches(a5060, 100*time.Millisecond) || sipSide.count.Load() != before {
		t.Error("BothWays blocks one way")
	}
	must(t, l.Unblock(both))
	if !reaches(a5060, 5*time.Second) {
		t.Error("Unblock of both ways did not unblock")
	}

	must(t, l.Block(Match{EtherType: unix.ETH_P_ARP}))
	must(t, b.Bind(l.VIP(1)))
	vip := sip(l.VIP(1))
	unknown := dial(t, a, vip)
	if reaches(unknown, 200*time.Millisecond) {
		t.Error("an address was resolved without ARP")
	}
	if !reaches(a5060, 5*time.Second) {
		t.Error("blocking ARP blocked a known neighbour")
	}
	for _, m := range []Match{{Port: 5060}, {Protocol: unix.IPPROTO_UDP, ToPort: true}, {Port: 1, Protocol: unix.IPPROTO_ICMP}, {Protocol: unix.IPPROTO_UDP, EtherType: unix.ETH_P_ARP}} {
		if err := l.Block(m); err == nil {
			t.Errorf("block %+v: accepted", m)
		}
	}
}
