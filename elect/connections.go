package elect

import "net/netip"

// Connections tells the other nodes of phones that are connected by TCP to a VIP
// held here: whoever holds it next wakes them (§5.5). It decides nothing.
type Connections struct {
	VIP   VIPID
	Items []Connection // at most MaxConnections; none: there are none
}

// MaxConnections is how many one message carries. So many of IPv4, or half as many of
// IPv6, fit into a packet of 1280 bytes.
const MaxConnections = 64

// Connection is one TCP connection, as its end at the VIP has it.
type Connection struct {
	Phone netip.AddrPort
	Port  uint16 // at the VIP
	// Seq is the oldest number that the phone has not acknowledged, Ack the one
	// that is expected from it; both 0: not known.
	Seq, Ack uint32
}

func (Connections) message() {}

// Share has the machine send a message that is for its peers' agents, not for
// their machines.
type Share struct {
	Connections
	Left bool // the VIP was held here until now: its next holder has use for the last word
}

func (Share) event() {}

// onShare sends it to whoever is there to use it.
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
