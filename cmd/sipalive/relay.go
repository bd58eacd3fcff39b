package main

import (
	"net/netip"
	"time"

	"sipalive/agent"
	"sipalive/arp"
	"sipalive/config"
	"sipalive/platform"
)

// prepareRelay says how the gateways are spoken to, unless no node may survive
// alone.
func prepareRelay(p *agent.Parts) (err error) {
	if p.Interface, err = platform.InterfaceOf(p.Self.Address); err != nil || p.Config.Survivor == config.SurvivorNever {
		return err
	}
	random, err := newRand()
	if err != nil {
		return err
	}
	o := arp.RelayOptions{
		Links: map[string]netip.Addr{p.Interface: p.Self.Address}, Watch: map[netip.Addr]bool{},
		Gateway: platform.Gateway, Random: random.Uint64,
		Now: func() time.Duration { return time.Duration(platform.BootNow()) },
	}
	for _, v := range p.Config.VIPs {
		o.Watch[v.Address] = true
	}
	for _, v := range p.Config.VIPs {
		if o.Links[v.Interface].IsValid() || !p.Self.Holder {
			continue
		}
		if own, err := platform.AddressOn(v.Interface, o.Watch); err == nil {
			o.Links[v.Interface] = own // without one there, nobody can be asked
		}
	}
	p.Relay = func(answered func(string, netip.Addr, time.Duration), heard func(arp.HeardARP)) (*arp.Relay, error) {
		o.Answered, o.Heard = answered, heard
		return arp.OpenRelay(o)
	}
	return nil
}
