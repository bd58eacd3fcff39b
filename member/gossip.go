package member

import (
	"fmt"
	"log"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"sipalive/elect"
)

// gossipConfig tunes memberlist for display only: little idle traffic (one
// probe and its answer a second), no waiting that outlives Close for long.
func gossipConfig(cfg *Config, t *transport, l *gossipLog) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(cfg.Self)
	c.Transport = t
	c.Label = cfg.Cluster
	c.BindAddr, c.BindPort = cfg.SelfAddress.String(), int(cfg.Port)
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.Keyring, _ = memberlist.NewKeyring(cfg.Keys, cfg.Keys[0]) // newSealer has checked them
	c.Logger = log.New(l, "", 0)
	c.LogOutput = nil
	c.Alive = configured(nodesByName(cfg))
	// A probe in flight lasts at most one interval, also on a node that
	// memberlist finds slow, and opens no TCP connection to a dead host.
	c.AwarenessMaxMultiplier = 1
	c.DisableTcpPings = true
	c.TCPTimeout = 2 * time.Second
	c.PushPullInterval = time.Minute
	c.EnableCompression = false
	c.DNSConfigPath = "" // addresses only
	if cfg.probe > 0 {
		c.ProbeInterval, c.ProbeTimeout = cfg.probe, cfg.probe/2
	}
	return c
}

// configured keeps nodes out of gossip that are not in the configuration under
// that address. memberlist calls it with its node lock held.
type configured map[string]netip.Addr

func nodesByName(cfg *Config) configured {
	nodes := configured{string(cfg.Self): cfg.SelfAddress}
	for _, p := range cfg.Peers {
		nodes[string(p.Name)] = p.Address
	}
	return nodes
}

// NotifyAlive is memberlist.AliveDelegate.
func (c configured) NotifyAlive(m *memberlist.Node) error {
	a, ok := netip.AddrFromSlice(m.Addr)
	if want, known := c[m.Name]; !ok || !known || want != a.Unmap() {
		return fmt.Errorf("node %q at %s is not configured", m.Name, m.Addr)
	}
	return nil
}

// rejoin looks, every interval and up to half of it more, for configured peers
// that gossip does not take for alive, and joins them: memberlist never merges
// again by itself after an isolation (measured), one Join does it in 0.2 s.
func (n *Network) rejoin(cfg *Config, random func() uint64) {
	every := cfg.Rejoin
	if every <= 0 {
		every = defaultRejoin
	}
	for {
		n.joinMissing(cfg)
		jitter := time.Duration(random() % uint64(every/2+1))
		select {
		case <-time.After(every + jitter):
		case <-n.transport.ctx.Done():
			return
		}
	}
}

// joinMissing joins all missing peers at once, so that one silent host does
// not hold up the others.
func (n *Network) joinMissing(cfg *Config) {
	alive := map[elect.Node]bool{}
	for _, m := range n.list.Members() {
		alive[elect.Node(m.Name)] = true
	}
	var wg sync.WaitGroup
	for _, p := range cfg.Peers {
		if alive[p.Name] {
			continue
		}
		wg.Go(func() {
			if _, err := n.list.Join([]string{netip.AddrPortFrom(p.Address, cfg.Port).String()}); err != nil {
				n.count.JoinsFailed.Add(1)
			} else {
				n.count.Joins.Add(1)
			}
		})
	}
	wg.Wait()
}
