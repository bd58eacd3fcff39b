package member

import (
	"fmt"
	"net/netip"

	"sipalive/elect"
)

// directory is who the peers are and how they are reached. It is replaced as a
// whole (Reconfigure), never changed.
type directory struct {
	config Config
	sealer *sealer
	peers  map[elect.Node]*peer
	owners map[netip.Addr]*peer // whose address it is
	// names is what gossip may know: every configured node and its address.
	names map[string]netip.Addr
}

// newDirectory keeps of before, if there is one, what is remembered of peers
// whose addresses are the same.
func newDirectory(cfg Config, paths int, before *directory) (*directory, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s, err := newSealer(cfg.Cluster, cfg.Keys)
	if err != nil {
		return nil, err
	}
	d := &directory{config: cfg, sealer: s, peers: map[elect.Node]*peer{}, owners: map[netip.Addr]*peer{},
		names: map[string]netip.Addr{string(cfg.Self): cfg.SelfAddress}}
	for _, c := range cfg.Peers {
		p := before.same(c)
		if p == nil {
			p = newPeer(c, cfg.Port, paths)
		}
		for _, a := range c.addresses() {
			d.owners[a] = p
		}
		d.peers[c.Name], d.names[string(c.Name)] = p, c.Address
	}
	return d, nil
}

// same is the peer as it was, if nothing of it has changed.
func (d *directory) same(c Peer) *peer {
	if d == nil {
		return nil
	}
	if p := d.peers[c.Name]; p != nil && p.addresses == c {
		return p
	}
	return nil
}

func newPeer(c Peer, port uint16, paths int) *peer {
	p := &peer{name: c.Name, addresses: c}
	for i, a := range c.addresses() {
		if i < paths {
			p.paths = append(p.paths, netip.AddrPortFrom(a, port))
		}
	}
	return p
}

// Reconfigure replaces the peers and the keys while the network runs; nothing
// that is heard or sent meanwhile is lost. What a node that stays has proven of
// its instance stays proven. An error changes nothing.
func (n *Network) Reconfigure(peers []Peer, keys [][]byte) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	return n.reconfigure(peers, keys)
}

func (n *Network) reconfigure(peers []Peer, keys [][]byte) error {
	before := n.directory()
	cfg := before.config
	cfg.Peers, cfg.Keys = peers, keys
	d, err := newDirectory(cfg, len(n.transport.paths), before)
	if err != nil {
		return err
	}
	if err := n.rekey(keys); err != nil {
		return err
	}
	n.current.Store(d)
	hello := n.newSender()
	for name, p := range d.peers {
		if before.peers[name] != p {
			hello.greet(p, true)
		}
	}
	return nil
}

// rekey gives gossip the keys: what is sealed with any of them can be opened
// from the first moment on.
func (n *Network) rekey(keys [][]byte) error {
	for _, k := range keys {
		if err := n.keyring.AddKey(k); err != nil {
			return fmt.Errorf("key for gossip: %w", err)
		}
	}
	if err := n.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("key for gossip: %w", err)
	}
	for _, old := range n.keyring.GetKeys() {
		if !contains(keys, old) {
			_ = n.keyring.RemoveKey(old) // it is not the first: it can be removed
		}
	}
	return nil
}

func contains(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if string(k) == string(key) {
			return true
		}
	}
	return false
}

func (n *Network) directory() *directory { return n.current.Load() }

// isPeer reports whether an address is a peer's.
func (n *Network) isPeer(a netip.Addr) bool { return n.directory().owners[a] != nil }
