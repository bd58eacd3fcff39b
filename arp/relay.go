package arp

import (
	"errors"
	"fmt"
	"net/netip"
)

// RelayLink names the router that passes packets on between the nodes (design §4.6), and
// this node's interface and address towards it. The zero RelayLink means no relay.
type RelayLink struct {
	Interface string
	Own       netip.Addr
	Gateway   netip.Addr // the zero Addr: the next hop of the default route there
}

func (l RelayLink) key() gatewayKey {
	return gatewayKey{l.Interface, l.Own.Is6(), l.Gateway.WithZone("")}
}

// via is what a frame to the relaying gateway needs. publish stores it whenever it
// changes, because heartbeats must not wait for a lock.
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

// Relay sends a UDP datagram to another node's address, but to the gateway's MAC address,
// so that the gateway passes it on. It builds whole frames: the kernel would follow the
// gateway's redirects and bypass the gateway. Relay never waits.
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
