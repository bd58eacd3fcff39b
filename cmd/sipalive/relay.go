package main

import "sipalive/arp"

// openRelay opens what speaks to the gateways.
func openRelay(o arp.RelayOptions) (*arp.Relay, error) {
	random, err := newRand()
	if err != nil {
		return nil, err
	}
	o.Random = random.Uint64
	return arp.OpenRelay(o)
}
