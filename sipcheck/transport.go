package sipcheck

// Transport is the protocol that carries a probe.
type Transport uint8

// The transports; the zero value is UDP.
const (
	UDP Transport = iota
	TCP
	TLS
)

// String returns the transport's word in a SIP URI and in the configuration, e.g. udp.
func (t Transport) String() string { return [...]string{"udp", "tcp", "tls"}[min(t, TLS)] }

// via returns the transport's word in a Via header (RFC 3261 §25.1).
func (t Transport) via() string { return [...]string{"UDP", "TCP", "TLS"}[min(t, TLS)] }

// listens returns the kind of port that the server must listen on.
func (t Transport) listens() string { return [...]string{"UDP", "TCP", "TCP"}[min(t, TLS)] }

// ParseTransport reads udp, tcp or tls.
func ParseTransport(s string) (t Transport, ok bool) {
	for t := UDP; t <= TLS; t++ {
		if t.String() == s {
			return t, true
		}
	}
	return UDP, false
}

// DefaultPort is the default port of SIP (RFC 3261 §19.1.2).
func (t Transport) DefaultPort() uint16 {
	if t == TLS {
		return 5061
	}
	return 5060
}
