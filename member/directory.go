package member

import (
	"fmt"
	"net/netip"

	"sipalive/elect"
)

// directory says who the peers are and how they are reached. It is never changed, only
// replaced as a whole (Reconfigure).
type directory struct {
	config Config
	sealer *sealer
	peers  map[elect.Node]*peer
	owners map[netip.Addr]*peer // the peer that has the address
	// names is what gossip may know: every configured node and its address.
	names map[string]netip.Addr
}

// newDirectory makes a directory of cfg. If before is not nil, it keeps what is
// remembered about peers whose addresses have not changed.
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

// same returns the existing peer if its addresses have not changed, or else nil.
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

// Reconfigure replaces the peers and the keys while the network runs. Nothing that is
// heard or sent meanwhile is lost. A node that stays a peer with the same addresses need
// not prove its instance again. On error nothing changes.
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

// rekey gives gossip the keys. It adds them all before it changes the sealing key, so
// that a packet sealed with any of them can be opened at any moment.
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
			_ = n.keyring.RemoveKey(old) // no error: it is not the first key
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

// isPeer reports whether a is a peer's address.
func (n *Network) isPeer(a netip.Addr) bool { return n.directory().owners[a] != nil }
