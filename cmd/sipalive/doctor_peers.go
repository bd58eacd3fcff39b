package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/doctor"
	"sipalive/elect"
	"sipalive/member"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// findPorts tries the agents' port on every other node: over TCP, and, if no agent runs
// here, also over UDP in the agent's place.
func findPorts(ctx context.Context, c *config.Config, self *config.Node, keys [][]byte) []doctor.Port {
	ctx, cancel := context.WithTimeout(ctx, asLong)
	defer cancel()
	var found []doctor.Port
	for _, n := range c.Nodes {
		if n.Name == self.Name {
			continue
		}
		found = append(found, doctor.Port{Node: n.Name, Address: n.Address})
		if n.Address2.IsValid() && self.Address2.IsValid() {
			found = append(found, doctor.Port{Node: n.Name, Address: n.Address2, Second: true})
		}
	}
	var reached map[elect.Node]member.Reached
	var askErr error
	asked := false
	var all sync.WaitGroup
	if len(keys) > 0 && len(found) > 0 {
		all.Go(func() {
			reached, askErr = member.Reach(ctx, member.Config{Cluster: c.Cluster, Keys: keys, Port: c.Port,
				Self: elect.Node(self.Name), SelfAddress: self.Address, Peers: agent.Peers(c, self)})
			asked = askErr == nil
		})
	}
	for i := range found {
		from := self.Address
		if found[i].Second {
			from = self.Address2
		}
		all.Go(func() { found[i].TCP = connects(ctx, from, netip.AddrPortFrom(found[i].Address, c.Port)) })
	}
	all.Wait()
	for i := range found {
		if p := &found[i]; !p.Second {
			r := reached[elect.Node(p.Node)]
			p.Asked, p.AskErr, p.Heard, p.Foreign, p.Answers = asked, askErr, r.Heard, r.Foreign, r.Answers
		}
	}
	return found
}

// connects dials from the node's own address, as the agent does: the kernel might choose
// a VIP.
func connects(ctx context.Context, from netip.Addr, to netip.AddrPort) error {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err == nil {
		return conn.Close()
	}
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("refused, nothing listens there")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer: the machine is off, or a firewall drops it")
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// findProbes asks every SIP target, as `sipalive probe` does.
func findProbes(ctx context.Context, c *config.Config, self *config.Node, local []netip.Addr) (found []doctor.Probe) {
	roots, err := sipcheck.LoadRoots(c.SIP.TLSCA)
	if err != nil {
		return []doctor.Probe{{Who: "authorities of SIP over TLS", What: c.SIP.TLSCA, Word: "not read", Why: err.Error(), Bad: true}}
	}
	for _, p := range findings(ctx, c, self, from(self, local), sipcheck.Security{Insecure: !c.SIP.TLSVerify, Roots: roots}) {
		found = append(found, doctor.Probe{Who: p.who, What: p.what, Word: p.word, Why: p.why, Bad: p.bad})
	}
	return found
}

// findDrifts compares the clock of every other node with this node's, all at the same
// time.
func findDrifts(ctx context.Context, c *config.Config, self *config.Node) []doctor.Drift {
	var found []doctor.Drift
	for _, n := range c.Nodes {
		if n.Name != self.Name {
			found = append(found, doctor.Drift{Node: n.Name})
		}
	}
	var all sync.WaitGroup
	for i := range found {
		d := &found[i]
		all.Go(func() {
			m, err := platform.MeasureClock(ctx, self.Address, netip.AddrPortFrom(c.Node(d.Node).Address, c.Port), driftOver)
			d.PPM, d.Fine, d.Err = m.PPM, m.Within, err
		})
	}
	all.Wait()
	return found
}
