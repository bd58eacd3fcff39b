// Package sipcheck asks SIP servers whether they answer. It sends OPTIONS messages with
// one prober per target, and turns the outcomes into a verdict.
//
// Any response means that the server lives, unless its code is listed as unhealthy.
// Silence and refusal mean that it is dead. A refused port counts at once (over UDP after
// two refusals), silence only after Fall probes (design §4.7, §6).
//
// Over UDP each prober has its own connected socket, for two reasons. Linux reports a
// closed port only to a connected socket (ECONNREFUSED 30 µs after the send, measured).
// And the kernel delivers only datagrams from the target itself to it. Over TCP and TLS a
// prober keeps one connection for several probes, see streams.
package sipcheck
