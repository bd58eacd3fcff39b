package member

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"sipalive/elect"
	"sipalive/keyring"
)

// Network is this node's connection to its peers.
type Network struct {
	self      elect.Node
	current   atomic.Pointer[directory]
	keyring   *memberlist.Keyring // gossip's keys
	transport *transport
	list      *memberlist.Memberlist
	log       *gossipLog
	pings     pings
	count     *counts
	deliver   func(elect.Received)
	relay     func(elect.Node, []byte) error
	onKeys    func(elect.Node, keyring.Message)
	out       *sender // used by Send only

	changing sync.Mutex // held while the directory is replaced

	order sync.Mutex // from a verdict to its delivery; locked before mu
	mu    sync.Mutex // protects guard and what peers remember; never held over I/O
	guard *Guard

	rejoining sync.WaitGroup
	closing   sync.Once
	closed    error
}

// peer is a configured node and what this node knows about it.
type peer struct {
	name      elect.Node
	addresses Peer
	paths     []netip.AddrPort // one for each address that both this node and the peer have

	last    []byte // body of the last packet if it was a heartbeat or an ask
	lastSeq elect.Seq
	lastAt  time.Time
	spent   time.Time // up to when greetings are used up, see mayGreet

	keysSpent        time.Time // the same for answers about keys
	opened, wrongKey atomic.Uint64
}

// Start binds the configured addresses, sends a hello to every peer and starts to
// deliver.
func Start(cfg Config) (*Network, error) {
	count := &counts{}
	n := &Network{self: cfg.Self, count: count, deliver: cfg.Deliver, log: &gossipLog{count: count}}
	d, err := newDirectory(cfg, len(Peer{cfg.Self, cfg.SelfAddress, cfg.SelfAddress2}.addresses()), nil)
	if err != nil {
		return nil, err
	}
	n.current.Store(d)
	t, err := newTransport(&cfg, count, n.isPeer)
	if err != nil {
		return nil, err
	}
	n.transport, n.relay, n.onKeys = t, cfg.Relay, cfg.OnKeys
	random := oneAtATime(cfg.Random)
	n.guard = NewGuard(cfg.Self, cfg.Instance, random)
	n.out = n.newSender()
	n.keyring, _ = memberlist.NewKeyring(cfg.Keys, cfg.Keys[0]) // newSealer has checked them
	t.start(n.receive)
	n.list, err = memberlist.Create(n.gossipConfig(&cfg))
	if err != nil {
		t.Shutdown()
		return nil, fmt.Errorf("start gossip on %s: %w", t.paths[0].local, err)
	}
	n.rejoining.Go(func() { n.rejoin(cfg.Rejoin, random) })
	hello := n.newSender()
	for _, p := range d.peers {
		hello.greet(p, true)
	}
	return n, nil
}

func oneAtATime(random func() uint64) func() uint64 {
	var mu sync.Mutex
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return random()
	}
}

// Counters returns a copy of the counters.
func (n *Network) Counters() Counters { return n.count.copy() }

// LastGossipLine returns a recent warning or error of memberlist, or "" if there was
// none. It is for display, and sampled at most once a second.
func (n *Network) LastGossipLine() string { return n.log.lastLine() }

// Members returns the nodes that gossip takes for alive, this one included, sorted. It is
// for display and decides nothing. It takes memberlist's lock.
func (n *Network) Members() []string {
	var names []string
	for _, m := range n.list.Members() {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// closeWithin bounds how long Close waits.
const closeWithin = 3 * time.Second

// Close stops receiving, closes the sockets and ends every goroutine. A memberlist
// goroutine that waits for the answer to a probe ends up to GossipProbe later. Nothing is
// delivered once Close has returned nil. Close may be called again.
func (n *Network) Close() error {
	n.closing.Do(func() {
		done := make(chan error, 1)
		go func() {
			n.transport.cancel()
			err := n.list.Shutdown()
			n.rejoining.Wait()
			done <- err
		}()
		select {
		case n.closed = <-done:
		case <-time.After(closeWithin):
			n.closed = fmt.Errorf("close network of node %s: not done after %s (does Deliver hang?)", n.self, closeWithin)
		}
	})
	return n.closed
}
