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

// gossipConfig tunes memberlist, whose view of the nodes is for display only. It sends
// one probe per GossipProbe, because each of its timers wakes the agent. Nothing in it
// may wait long after Close.
func (n *Network) gossipConfig(cfg *Config) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(cfg.Self)
	c.Transport = n.transport
	c.Label = cfg.Cluster
	c.BindAddr, c.BindPort = cfg.SelfAddress.String(), int(cfg.Port)
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.Keyring = n.keyring
	c.Logger = log.New(n.log, "", 0)
	c.LogOutput = nil
	c.Alive = configured{n}
	c.Ping = &n.pings
	// A probe lasts at most one interval, also on a node that memberlist finds slow. It
	// opens no TCP connection to a dead host.
	c.AwarenessMaxMultiplier = 1
	c.DisableTcpPings = true
	c.TCPTimeout = 2 * time.Second
	c.PushPullInterval = time.Minute
	c.ProbeInterval, c.GossipInterval = GossipProbe, GossipProbe
	c.EnableCompression = false
	c.DNSConfigPath = "" // no names are resolved
	if cfg.probe > 0 {
		c.ProbeInterval, c.ProbeTimeout, c.GossipInterval = cfg.probe, cfg.probe/2, cfg.probe
	}
	return c
}

// GossipProbe is how often gossip pings a peer (one after the other), and how often it
// passes on news that no ping carried.
const GossipProbe = 10 * time.Second

// configured keeps a node out of gossip unless the configuration has that node with that
// address. memberlist calls it with its node lock held.
type configured struct{ *Network }

// NotifyAlive is part of memberlist.AliveDelegate.
func (c configured) NotifyAlive(m *memberlist.Node) error {
	a, ok := netip.AddrFromSlice(m.Addr)
	if want, known := c.directory().names[m.Name]; !ok || !known || want != a.Unmap() {
		return fmt.Errorf("node %q at %s is not configured", m.Name, m.Addr)
	}
	return nil
}

// pings remembers who answered gossip's pings. An answer shows that UDP works from our
// port to the peer's and back, which a heartbeat heard does not show. memberlist pings
// one node per GossipProbe.
type pings struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// AckPayload is part of memberlist.PingDelegate.
func (p *pings) AckPayload() []byte { return nil }

// NotifyPingComplete is part of memberlist.PingDelegate.
func (p *pings) NotifyPingComplete(other *memberlist.Node, _ time.Duration, _ []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	p.last[other.Name] = time.Now()
}

// Answered returns how long ago a peer answered a ping sent to it directly over UDP. ever
// is false if it never has. Gossip pings one peer per GossipProbe, in turn. It does not
// ping a peer that it takes for dead until it has joined that peer again. For display.
func (n *Network) Answered(peer elect.Node) (ago time.Duration, ever bool) {
	n.pings.mu.Lock()
	defer n.pings.mu.Unlock()
	at, ever := n.pings.last[string(peer)]
	return time.Since(at), ever
}

// rejoin looks for configured peers that gossip does not take for alive, and joins them.
// It does so every interval plus up to half of it. memberlist never merges again on its
// own after an isolation (measured); one Join does it in 0.2 s.
func (n *Network) rejoin(every time.Duration, random func() uint64) {
	if every <= 0 {
		every = defaultRejoin
	}
	for {
		n.joinMissing()
		jitter := time.Duration(random() % uint64(every/2+1))
		select {
		case <-time.After(every + jitter):
		case <-n.transport.ctx.Done():
			return
		}
	}
}

// joinMissing joins all missing peers at the same time, so that one silent host does not
// delay the others.
func (n *Network) joinMissing() {
	cfg := n.directory().config
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
