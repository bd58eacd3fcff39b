package main

import (
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"

	"sipalive/agent"
	"sipalive/elect"
	"sipalive/vip"
)

// openMachine restores what an earlier agent left and starts the election's machine with
// it. The machine goes on asking for a lease only if nothing of it is missing: its
// address is still bound, and its end is ahead.
func openMachine(p *agent.Parts) error {
	runtime, durable, err := p.Directory.Restore()
	if err != nil {
		return err
	}
	cfg := agent.ElectConfig(p.Config, p.Self, p.Relay)
	var ids []elect.VIPID
	roles := map[elect.VIPID]bool{}
	for _, v := range cfg.VIPs {
		ids = append(ids, v.ID)
		roles[v.ID] = v.Role
	}
	if err := dropOthers(p, ids); err != nil {
		return err
	}
	leases, err := p.Directory.OpenLeases(ids)
	if err != nil {
		return err
	}
	granted, err := p.Directory.OpenGrants(ids)
	if err != nil {
		return err
	}
	bound, err := p.Table.Bound()
	if err != nil {
		return err
	}
	isBound := inPlace(bound)
	if runtime != nil {
		for _, h := range leases {
			if h.Until > now() && (isBound[h.VIP] || roles[h.VIP]) {
				p.Adopted = append(p.Adopted, h)
			}
		}
	}
	if p.Rand, err = newRand(); err != nil {
		return err
	}
	p.Machine, err = elect.New(cfg, elect.Restored{Runtime: runtime, Durable: durable, Held: p.Adopted, Granted: granted},
		elect.Instance(p.Rand.Uint64()|1), now(), p.Rand)
	return err
}

// inPlace returns the VIPs that are bound as the agent binds them. If there is a stray
// copy beside it, the binder's first round removes the copy.
func inPlace(bound []vip.Bound) map[elect.VIPID]bool {
	is := map[elect.VIPID]bool{}
	for _, b := range bound {
		if b.AsBoundByBind {
			is[elect.VIPID(b.IP.String())] = true
		}
	}
	return is
}

// dropOthers unbinds what an agent with another file held here: no lease of this agent
// will ever end it.
func dropOthers(p *agent.Parts, ids []elect.VIPID) error {
	for _, id := range p.Directory.LeftBound(ids) {
		ip, err := netip.ParseAddr(string(id))
		if err != nil {
			continue // a role
		}
		t, err := vip.Open([]vip.Address{{IP: ip}})
		if err != nil {
			return err
		}
		err = t.Unbind(vip.Address{IP: ip})
		t.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func newRand() (*rand.Rand, error) {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("read random numbers: %w", err)
	}
	return rand.New(rand.NewChaCha8(seed)), nil
}

// sweep removes every configured VIP that is bound without a lease.
func sweep(p *agent.Parts, log *slog.Logger) error {
	adopted := map[netip.Addr]bool{}
	for _, h := range p.Adopted {
		if ip, err := netip.ParseAddr(string(h.VIP)); err == nil {
			adopted[ip] = true
		}
	}
	removed, err := p.Table.Sweep(func(ip netip.Addr) bool { return adopted[ip] })
	for _, b := range removed {
		log.Warn("removed an address found bound without a lease", "node", p.Self.Name, "vip", b.IP.String(), "from", b.Interface)
	}
	return err
}
