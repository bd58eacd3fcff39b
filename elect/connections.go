package elect

import "net/netip"

// Connections tells the other nodes which phones are connected by TCP to a VIP held here.
// The next holder wakes them (§5.5). It decides nothing.
type Connections struct {
	VIP   VIPID
	Items []Connection // at most MaxConnections; empty: no phone is connected
}

// MaxConnections is how many connections one message carries. That many over IPv4, or
// half as many over IPv6, fit into a packet of 1280 bytes.
const MaxConnections = 64

// Connection is one TCP connection, as the VIP's end sees it.
type Connection struct {
	Phone netip.AddrPort
	Port  uint16 // at the VIP
	// Seq is the oldest number that the phone has not acknowledged, Ack the number that
	// is expected from the phone next. Both 0: not known.
	Seq, Ack uint32
}

func (Connections) message() {}

// Share has the machine send a message that is for its peers' agents, not for their
// machines.
type Share struct {
	Connections
	Left bool // the VIP was held here until now: its next holder can use this last word
}

func (Share) event() {}

// onShare sends the message to every live peer that may hold a VIP.
func (m *Machine) onShare(e Share) {
	if v := m.known[e.VIP]; v == nil || !v.serves() && !e.Left {
		return // let go of meanwhile
	}
	for _, p := range m.peers {
		if p != m.self && p.alive && p.Holder {
			m.send(p, e.Connections)
		}
	}
}
