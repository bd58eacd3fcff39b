package arp

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sipalive/platform"
	"sipalive/platform/nstest"
)

var (
	relayOwn     = netip.MustParseAddr("192.0.2.11")
	relayGateway = netip.MustParseAddr("192.0.2.1")
	relayPeer    = netip.MustParseAddr("192.0.2.12")
)

// relaySite is a node with its gateway at the other end of the wire, and a
// Relay that runs in the node.
type relaySite struct {
	near, far *nstest.Namespace
	relay     *Relay
	answered  chan netip.Addr
	heard     chan HeardARP
}

func newRelaySite(t *testing.T) *relaySite {
	s := &relaySite{near: nstest.Enter(t), answered: make(chan netip.Addr, 16), heard: make(chan HeardARP, 16)}
	s.far = s.near.Beside()
	s.near.Wire("eth0", s.far, "eth0")
	s.near.Add("eth0", relayOwn.String()+"/24")
	s.far.Add("eth0", relayGateway.String()+"/24")
	n := uint64(0)
	var err error
	s.relay, err = OpenRelay(RelayOptions{
		Links: map[string]netip.Addr{"eth0": relayOwn}, Watch: func(ip netip.Addr) bool { return ip == vip1 },
		Gateway:  func(string) (netip.Addr, error) { return relayGateway, nil },
		Answered: func(_ string, from netip.Addr, _ time.Duration) { s.answered <- from },
		Heard:    func(h HeardARP) { s.heard <- h },
		Now:      func() time.Duration { return time.Duration(platform.BootNow()) },
		Random:   func() uint64 { n += 0x9e3779b97f4a7c15; return n },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.relay.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); s.relay.Gateway("eth0") != relayGateway; {
		if time.Now().After(deadline) {
			t.Fatal("the gateway's MAC address was not learnt")
		}
		time.Sleep(time.Millisecond)
	}
	return s
}

func get[T any](t *testing.T, ch chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing within 10 s", what)
	}
	return v
}

// The gateway answers a ping from the node's address; one from a VIP finds the
// way back only where the gateway's table points here.
func TestRelayPing(t *testing.T) {
	s := newRelaySite(t)
	if err := s.relay.Ping("eth0", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if from := get(t, s.answered, "answer to the node"); from != relayOwn {
		t.Errorf("answered %s", from)
	}
	s.near.Add("eth0", vip1.String()+"/32")
	if err := s.relay.Ping("eth0", vip1); err != nil {
		t.Fatal(err)
	}
	if from := get(t, s.answered, "answer to the VIP"); from != vip1 {
		t.Errorf("answered %s", from)
	}
	if err := s.relay.Ping("eth1", vip1); err == nil {
		t.Error("pinged by an interface that is no link")
	}
	if got := s.relay.Stats(); got.Answered != 2 || got.Errors != 0 {
		t.Errorf("%+v", got)
	}
}

// What another host says and asks of a VIP is heard; what this node says, or
// the gateway for others, is not.
func TestRelayHearsClaims(t *testing.T) {
	s := newRelaySite(t)
	own := s.near.MAC("eth0")
	f := announcement(operationRequest, hardwareAddr(own), vip1)
	send := func(f frame) {
		t.Helper()
		s.far.Do(func() {
			sock, err := openSocket()
			if err != nil {
				t.Fatal(err)
			}
			defer sock.close()
			err = sock.with(func(fd int) error {
				index, _, err := look(fd, "eth0")
				if err != nil {
					return err
				}
				return transmit(fd, index, f[:])
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	send(f)                                                                          // our own, come back
	send(announcement(operationReply, hardwareAddr(s.far.MAC("eth0")), vip1))        // the gateway's
	send(announcement(operationReply, hardwareAddr{2, 0, 0, 0, 0, 9}, vip2))         // not watched
	question := announcement(operationRequest, hardwareAddr{2, 0, 0, 0, 0, 9}, vip1) // another node asks
	sender := relayPeer.As4()
	copy(question[28:32], sender[:])
	send(question)
	if h := get(t, s.heard, "question"); h != (HeardARP{Address: vip1, Asker: relayPeer}) {
		t.Errorf("heard %+v", h)
	}
	send(announcement(operationReply, hardwareAddr{2, 0, 0, 0, 0, 9}, vip1))
	if h := get(t, s.heard, "claim"); h != (HeardARP{Address: vip1}) {
		t.Errorf("heard %+v", h)
	}
	if len(s.heard) > 0 {
		t.Errorf("and more: %+v", <-s.heard)
	}
}

// A datagram goes to the gateway's MAC address with the peer's IP address, and
// comes whole through a kernel at the other end, in fragments where it is long.
func TestRelaySend(t *testing.T) {
	s := newRelaySite(t)
	s.far.Add("eth0", relayPeer.String()+"/32") // the peer, as if passed on already
	var conn *net.UDPConn
	s.far.Do(func() {
		var err error
		if conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: relayPeer.AsSlice(), Port: 7946}); err != nil {
			t.Fatal(err)
		}
	})
	defer conn.Close()
	for _, size := range []int{1, 500, 1393, 5000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := s.relay.Send("eth0", 7946, netip.AddrPortFrom(relayPeer, 7946), want); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 9000)
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], want) || from.Addr().Unmap() != relayOwn || from.Port() != 7946 {
			t.Errorf("%d bytes: %d from %v, %v", size, n, from, err)
		}
	}
}

// AskOwner asks with the node's own address: it announces nothing.
func TestRelayAskOwner(t *testing.T) {
	s := newRelaySite(t)
	conn := sniff(t, s.far)
	if err := s.relay.AskOwner("eth0", vip1); err != nil {
		t.Fatal(err)
	}
	f := next(t, conn, 5*time.Second)
	if f == nil {
		t.Fatal("nothing on the wire")
	}
	sender, target := netip.AddrFrom4([4]byte(f[28:32])), netip.AddrFrom4([4]byte(f[38:42]))
	if f[21] != operationRequest || sender != relayOwn || target != vip1 || !bytes.Equal(f[22:28], s.near.MAC("eth0")) || !bytes.Equal(f[6:12], f[22:28]) {
		t.Errorf("frame %x", f)
	}
}

// Frames that are cut short or strange have no effect.
func TestRelayHostile(t *testing.T) {
	s := newRelaySite(t)
	good := echoFrame(hardwareAddr{}, relayGateway, relayOwn, s.relay.id, 1, 7)
	for n := range len(good) {
		s.relay.hearEcho("eth0", good[:n])
		s.relay.hearARP("eth0", good[:n])
	}
	good[14] = 0x4f // a header of 60 bytes
	s.relay.hearEcho("eth0", good)
	s.relay.hearEcho("eth9", good)
	a := announcement(operationReply, hardwareAddr{2}, vip1)
	for n := range len(a) {
		s.relay.hearARP("eth0", a[:n])
	}
	if len(s.answered)+len(s.heard) > 0 || s.relay.Stats().Answered > 0 {
		t.Error("took a broken frame")
	}
}
