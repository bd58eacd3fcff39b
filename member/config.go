package member

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sipalive/elect"
	"sipalive/keyring"
)

// Config is what Start needs.
type Config struct {
	Cluster string   // the label of every packet; packets with another are dropped
	Keys    [][]byte // 16, 24 or 32 bytes each; the first one seals, all of them open
	Port    uint16   // UDP and TCP, the same on every node

	Self         elect.Node
	SelfAddress  netip.Addr
	SelfAddress2 netip.Addr // zero: none
	Peers        []Peer     // the other nodes

	Instance elect.Instance // random per boot, kept in the runtime directory (§4.2)
	// Random gives the nonces and the jitter. It is called from several goroutines, but
	// by one at a time.
	Random func() uint64
	// Deliver takes each fresh message, one at a time. Messages come in the order of
	// their numbers as far as the network kept it. Deliver runs in a receiving goroutine,
	// which reads nothing meanwhile: it must be quick and never wait for the agent's
	// loop. It may be called before Start returns.
	Deliver func(elect.Received)

	// OnKeys takes what a peer says about keys. It runs in a receiving goroutine and must
	// not wait. nil: messages about keys are dropped.
	OnKeys func(from elect.Node, m keyring.Message)

	// Relay sends a datagram to a peer's port through the gateway (§4.6). It is called by
	// any sending goroutine and must not wait. nil: nothing is sent through the gateway.
	Relay func(to elect.Node, datagram []byte) error

	Rejoin time.Duration // between checks for peers that gossip lost; default 3 s

	probe time.Duration // gossip's interval, for tests that cannot wait for seconds; default GossipProbe
}

// Peer is another node as configured.
type Peer struct {
	Name     elect.Node
	Address  netip.Addr
	Address2 netip.Addr // zero: none; used where this node has one too
}

const defaultRejoin = 3 * time.Second

func (c *Config) check() error {
	switch {
	case c.Port == 0:
		return errors.New("no port: every node must use the same one")
	case c.Instance == 0:
		return errors.New("no instance: 0 means none")
	case c.Random == nil || c.Deliver == nil:
		return errors.New("a source of random numbers and a function to deliver to are needed")
	case len(c.Peers) >= maxNodes:
		return fmt.Errorf("%d peers: a cluster has at most %d nodes", len(c.Peers), maxNodes)
	}
	self := Peer{c.Self, c.SelfAddress, c.SelfAddress2}
	if err := checkAddresses(self); err != nil {
		return err
	}
	names := map[elect.Node]bool{c.Self: true}
	owner := map[netip.Addr]elect.Node{}
	for _, p := range append([]Peer{self}, c.Peers...) {
		if err := checkAddresses(p); err != nil {
			return err
		}
		if p != self && names[p.Name] {
			return fmt.Errorf("node %s is there twice", p.Name)
		}
		names[p.Name] = true
		for i, a := range p.addresses() {
			if other, taken := owner[a]; taken {
				return fmt.Errorf("address %s is both %s's and %s's", a, other, p.Name)
			}
			owner[a] = p.Name
			if mine := self.addresses(); i < len(mine) && mine[i].Is4() != a.Is4() {
				return fmt.Errorf("%s has %s and %s has %s: no path between IPv4 and IPv6", c.Self, mine[i], p.Name, a)
			}
		}
	}
	return nil
}

// checkAddresses refuses addresses that may not work for binding and sending. For
// example, memberlist bound to 0.0.0.0 chooses an address itself, which could be a VIP
// (measured).
func checkAddresses(p Peer) error {
	if p.Name == "" || len(p.Name) > maxName || !printable(string(p.Name)) {
		return fmt.Errorf("node name %q: must have 1 to %d printable bytes", p.Name, maxName)
	}
	for _, a := range p.addresses() {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("address %s of node %s: must be one plain unicast address", a, p.Name)
		}
	}
	return nil
}

// addresses returns the node's addresses, one per path, in order. There is always a first
// one.
func (p Peer) addresses() []netip.Addr {
	if !p.Address2.IsValid() {
		return []netip.Addr{p.Address}
	}
	return []netip.Addr{p.Address, p.Address2}
}
