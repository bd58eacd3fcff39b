// Package sipcheck asks SIP servers whether they answer: one OPTIONS message,
// one prober per target, a verdict.
//
// A response is life whatever its code, unless the code is listed as
// unhealthy; silence and refusal are death. A refused port is death at once (over
// UDP when it has refused twice), silence only after Fall probes (design §4.7, §6).
//
// Over UDP each prober owns one connected socket: only so does Linux report a
// closed port (ECONNREFUSED 30 µs after the send, measured), and only datagrams
// from the very target are read at all. Over TCP and TLS it keeps one connection
// for several probes, see streams.
package sipcheck
