package member

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"sipalive/elect"
)

// Network is this node's connection to its peers.
type Network struct {
	self      elect.Node
	peers     map[elect.Node]*peer
	owners    map[netip.Addr]*peer // whose address it is
	sealer    *sealer
	transport *transport
	list      *memberlist.Memberlist
	log       *gossipLog
	count     *counts
	deliver   func(elect.Received)
	relay     func(elect.Node, []byte) error
	out       *sender // Send's

	order sync.Mutex // from a verdict to its delivery; taken before mu
	mu    sync.Mutex // guard and what peers remember; never held over I/O
	guard *Guard

	rejoining sync.WaitGroup
	closing   sync.Once
	closed    error
}

// peer is a configured node and what was last sent to it.
type peer struct {
	name  elect.Node
	index int
	paths []netip.AddrPort // as many as this node and the peer both have

	last    []byte // body of the last packet, if it was a heartbeat or an ask
	lastSeq elect.Seq
	lastAt  time.Time
	spent   time.Time // greetings, see mayGreet
}

// Start binds the configured addresses, says hello to every peer and begins to
// deliver.
func Start(cfg Config) (*Network, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s, err := newSealer(cfg.Cluster, cfg.Keys)
	if err != nil {
		return nil, err
	}
	count := &counts{}
	t, err := newTransport(&cfg, count)
	if err != nil {
		return nil, err
	}
	n := &Network{
		self: cfg.Self, sealer: s, transport: t, count: count, deliver: cfg.Deliver, relay: cfg.Relay,
		log: &gossipLog{count: count},
	}
	random := oneAtATime(cfg.Random)
	n.guard = NewGuard(cfg.Self, cfg.Instance, random)
	n.addPeers(&cfg)
	n.out = n.newSender()
	t.start(n.receive)
	n.list, err = memberlist.Create(gossipConfig(&cfg, t, n.log))
	if err != nil {
		t.Shutdown()
		return nil, fmt.Errorf("start gossip on %s: %w", t.paths[0].local, err)
	}
	n.rejoining.Go(func() { n.rejoin(&cfg, random) })
	hello := n.newSender()
	for _, p := range n.peers {
		hello.greet(p, true)
	}
	return n, nil
}

func (n *Network) addPeers(cfg *Config) {
	n.peers, n.owners = map[elect.Node]*peer{}, map[netip.Addr]*peer{}
	for i, c := range cfg.Peers {
		p := &peer{name: c.Name, index: i}
		for j, a := range c.addresses() {
			n.owners[a] = p
			if j < len(n.transport.paths) {
				p.paths = append(p.paths, netip.AddrPortFrom(a, cfg.Port))
			}
		}
		n.peers[c.Name] = p
	}
}

func oneAtATime(random func() uint64) func() uint64 {
	var mu sync.Mutex
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return random()
	}
}

// Counters returns a copy of what was counted so far.
func (n *Network) Counters() Counters { return n.count.copy() }

// LastGossipLine is a recent warning or error of memberlist, empty if there
// was none: for display, sampled at most once a second.
func (n *Network) LastGossipLine() string { return n.log.lastLine() }

// Members are the nodes that gossip takes for alive, this one included,
// sorted. For display: it decides nothing. It takes memberlist's lock.
func (n *Network) Members() []string {
	var names []string
	for _, m := range n.list.Members() {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// closeWithin bounds Close.
const closeWithin = 3 * time.Second

// Close stops receiving, closes the sockets and ends every goroutine; one of
// memberlist's that waits for a probe's answer ends within a second after.
// Nothing is delivered once it has returned nil. It may be called again.
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
