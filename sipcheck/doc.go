// Package sipcheck asks SIP servers whether they answer: one OPTIONS message,
// one prober per target, a verdict.
//
// A response is life whatever its code, unless the code is listed as
// unhealthy; silence and refusal are death. A refused port is death at once,
// silence only after Fall probes (design §4.7, §6).
//
// Each prober owns one connected UDP socket: only so does Linux report a
// closed port (ECONNREFUSED 30 µs after the send, measured), and only datagrams
// from the very target are read at all.
package sipcheck
