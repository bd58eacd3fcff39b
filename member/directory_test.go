package member

import (
	"strings"
	"testing"

	"sipalive/elect"
)

// of returns node i's configuration with these nodes in it.
func of(i int, port uint16, nodes ...int) Config {
	cfg := config(i, port)
	cfg.Peers = peersOf(cfg.Self, nodes...)
	return cfg
}

func peersOf(self elect.Node, nodes ...int) (peers []Peer) {
	for _, i := range nodes {
		if nodeName(i) != self {
			peers = append(peers, Peer{Name: nodeName(i), Address: addr(i)})
		}
	}
	return peers
}

func (n *node) reload(t *testing.T, peers []Peer, keys [][]byte) {
	t.Helper()
	if err := n.Reconfigure(peers, keys); err != nil {
		t.Fatal(err)
	}
}

// TestReconfigurePeers: a third node is heard once both sides know it. Messages to a node
// that stays go on. A node that has left is a stranger.
func TestReconfigurePeers(t *testing.T) {
	port := freePort(t)
	a, b := start(t, of(1, port, 1, 2)), start(t, of(2, port, 1, 2))
	seq := meetUp(t, a, b)
	c := start(t, of(3, port, 1, 2, 3))
	if err := a.Send(elect.Outgoing{To: c.self, Seq: 1000, Msg: elect.Heartbeat{}}); err == nil {
		t.Error("a node that is not configured was sent to")
	}
	a.reload(t, peersOf(a.self, 1, 2, 3), [][]byte{key})
	next := meetUp(t, a, c)
	a.flush(t, b, max(seq, next)) // the same instance, with no new proof
	a.reload(t, peersOf(a.self, 1, 2), [][]byte{key})
	before := a.Counters()
	eventually(t, "a node that has left is a stranger", func() bool {
		next++
		c.mustSend(t, a.self, next, elect.Heartbeat{})
		return a.Counters().WrongSource > before.WrongSource
	})
	a.flush(t, b, max(seq, next)+1)
}

// TestReconfigureKeys: a keyring is changed by giving every node both keys, then the new
// one first, then only the new one. Every node is heard all the time.
func TestReconfigureKeys(t *testing.T) {
	port := freePort(t)
	a, b := start(t, of(1, port, 1, 2)), start(t, of(2, port, 1, 2))
	seq := meetUp(t, a, b)
	hear := func() {
		t.Helper()
		a.flush(t, b, seq)
		b.flush(t, a, seq)
		seq++
	}
	hear()
	for _, ring := range [][][]byte{{key, otherKey}, {otherKey, key}, {otherKey}} {
		for _, n := range []*node{a, b} {
			n.reload(t, peersOf(n.self, 1, 2), ring)
			hear()
		}
	}
	if got := a.keyring.GetKeys(); len(got) != 1 || string(got[0]) != string(otherKey) {
		t.Errorf("gossip has %d keys, want the new one alone", len(got))
	}
}

// TestReconfigureRefuses: on error nothing changes.
func TestReconfigureRefuses(t *testing.T) {
	port := freePort(t)
	a, b := start(t, of(1, port, 1, 2)), start(t, of(2, port, 1, 2))
	seq := meetUp(t, a, b)
	before := a.directory()
	twice := append(peersOf(a.self, 1, 2), peersOf(a.self, 1, 2)...)
	if err := a.Reconfigure(twice, [][]byte{key}); err == nil || !strings.Contains(err.Error(), "is there twice") {
		t.Errorf("two peers of one name: %v", err)
	}
	if err := a.Reconfigure(peersOf(a.self, 1, 2), [][]byte{{1, 2, 3}}); err == nil || !strings.Contains(err.Error(), "AES needs") {
		t.Errorf("a key of three bytes: %v", err)
	}
	if a.directory() != before {
		t.Error("a refused configuration was taken")
	}
	a.flush(t, b, seq)
}
