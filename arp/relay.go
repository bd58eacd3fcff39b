package arp

import (
	"errors"
	"fmt"
	"net/netip"
)

// RelayLink is the router that is to pass packets on between the nodes (design
// §4.6): where, and from which of this node's addresses. The zero RelayLink is
// none.
type RelayLink struct {
	Interface string
	Own       netip.Addr
	Gateway   netip.Addr // the zero Addr: the next hop of the default route there
}

func (l RelayLink) key() gatewayKey {
	return gatewayKey{l.Interface, l.Own.Is6(), l.Gateway.WithZone("")}
}

// via is what a frame to the relaying gateway needs. It is published whenever
// it changes, for heartbeats wait for no lock.
type via struct {
	RelayLink
	mac hardwareAddr
}

func (w *Watch) publish() {
	g := w.gateways[w.o.Relay.key()]
	if g == nil || !g.resolved {
		w.via.Store(nil)
		return
	}
	now := via{w.o.Relay, g.mac}
	if v := w.via.Load(); v == nil || *v != now {
		w.via.Store(&now)
	}
}

var errNoGateway = errors.New("the gateway's MAC address is not known (is there a default route, and does it answer ARP or ND?)")

// Relay sends a UDP datagram to another node's address, but to the gateway's MAC
// address, for the gateway to pass on. Frames are built whole: by the kernel's
// sockets the gateway's redirects would shorten that way. It never waits.
func (w *Watch) Relay(port uint16, to netip.AddrPort, datagram []byte) error {
	v := w.via.Load()
	if v == nil {
		w.relayErrors.Add(1)
		return fmt.Errorf("relay to %s: %w", to, errNoGateway)
	}
	err := w.socket.with(func(fd int) error {
		index, mac, err := look(fd, v.Interface)
		if err != nil {
			return err
		}
		for _, f := range udpFrames(mac, v.mac, netip.AddrPortFrom(v.Own, port), to, w.datagram.Add(1), datagram) {
			err = errors.Join(err, transmit(fd, index, f))
		}
		return err
	})
	if err != nil {
		w.relayErrors.Add(1)
		return fmt.Errorf("relay to %s by %s: %w", to, v.Interface, explain(err))
	}
	w.relayed.Add(1)
	return nil
}
