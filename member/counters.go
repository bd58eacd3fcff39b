package member

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Counters is a copy of the counts since Start. Every dropped packet is counted in
// exactly one of them.
type Counters struct {
	Sent       uint64 // datagrams given to the kernel, by every path
	SendErrors uint64 // datagrams the kernel refused: no route, full buffer, filtered
	Resent     uint64 // repeats to a peer that lacked our nonce or whose nonce we lacked
	HellosSent uint64
	// Relayed counts datagrams sent through the gateway. RelayErrors counts those that
	// could not be sent, because the gateway's MAC address is not known yet or the link
	// is down.
	Relayed     uint64
	RelayErrors uint64

	Received uint64 // datagrams, gossip included
	Accepted uint64 // messages delivered
	Hellos   uint64 // hellos heard
	Gossip   uint64 // datagrams passed on to memberlist
	Keys     uint64 // messages about keys handed on

	Garbage       uint64 // not in the form of our packets
	WrongLabel    uint64 // for another cluster
	WrongKey      uint64 // none of our keys opens it
	WrongSource   uint64 // not from a configured address, or from another node's address
	UnknownSender uint64 // names a node that is not configured
	Self          uint64 // claims to be from this node
	Misdirected   uint64 // meant for another node
	Duplicate     uint64 // the copy by the second path
	Replayed      uint64 // heard before, overtaken, or too old to know
	StaleInstance uint64 // from an instance that has been replaced
	Unproven      uint64 // from an instance that has not echoed our nonce yet
	GossipDropped uint64 // memberlist did not keep up
	KeysDropped   uint64 // questions about keys over the limit; without OnKeys all messages about keys

	ReceiveErrors  uint64
	StreamsRefused uint64 // TCP: not from a peer, too many, or not a stream of ours
	Joins          uint64 // peers that gossip had lost and joined again
	JoinsFailed    uint64
	GossipWarnings uint64 // warnings that memberlist logged
	GossipErrors   uint64
}

// counts has the same fields as Counters, as atomics. TestCountersAreAllCopied checks
// that.
type counts struct {
	Sent, SendErrors, Resent, HellosSent         atomic.Uint64
	Received, Accepted, Hellos, Gossip           atomic.Uint64
	Garbage, WrongLabel, WrongKey, WrongSource   atomic.Uint64
	UnknownSender, Self, Misdirected, Duplicate  atomic.Uint64
	Replayed, StaleInstance, Unproven            atomic.Uint64
	GossipDropped, ReceiveErrors, StreamsRefused atomic.Uint64
	Joins, JoinsFailed, Relayed, RelayErrors     atomic.Uint64
	Keys, KeysDropped                            atomic.Uint64
	GossipWarnings, GossipErrors                 atomic.Uint64
}

func (c *counts) copy() Counters {
	return Counters{
		Relayed: c.Relayed.Load(), RelayErrors: c.RelayErrors.Load(),
		Sent: c.Sent.Load(), SendErrors: c.SendErrors.Load(), Resent: c.Resent.Load(), HellosSent: c.HellosSent.Load(),
		Received: c.Received.Load(), Accepted: c.Accepted.Load(), Hellos: c.Hellos.Load(), Gossip: c.Gossip.Load(),
		Garbage: c.Garbage.Load(), WrongLabel: c.WrongLabel.Load(), WrongKey: c.WrongKey.Load(), WrongSource: c.WrongSource.Load(),
		UnknownSender: c.UnknownSender.Load(), Self: c.Self.Load(), Misdirected: c.Misdirected.Load(), Duplicate: c.Duplicate.Load(),
		Replayed: c.Replayed.Load(), StaleInstance: c.StaleInstance.Load(), Unproven: c.Unproven.Load(),
		GossipDropped: c.GossipDropped.Load(), ReceiveErrors: c.ReceiveErrors.Load(), StreamsRefused: c.StreamsRefused.Load(),
		Keys: c.Keys.Load(), KeysDropped: c.KeysDropped.Load(),
		Joins: c.Joins.Load(), JoinsFailed: c.JoinsFailed.Load(),
		GossipWarnings: c.GossipWarnings.Load(), GossipErrors: c.GossipErrors.Load(),
	}
}

// verdict counts a packet that the guard refused.
func (c *counts) verdict(v Verdict, twoPaths bool) {
	switch v {
	case Duplicate:
		if twoPaths {
			c.Duplicate.Add(1)
		} else {
			c.Replayed.Add(1)
		}
	case Replayed:
		c.Replayed.Add(1)
	case Retired:
		c.StaleInstance.Add(1)
	case Unproven:
		c.Unproven.Add(1)
	case Misdirected:
		c.Misdirected.Add(1)
	case Own:
		c.Self.Add(1)
	}
}

// gossipLog takes memberlist's log lines. It counts them and keeps at most one a second
// for display. Each bad packet makes a line (measured), so no line is logged.
type gossipLog struct {
	count *counts
	mu    sync.Mutex
	last  string
	at    time.Time
}

func (l *gossipLog) Write(line []byte) (int, error) {
	s := string(line)
	switch {
	case strings.Contains(s, "[ERR"):
		l.count.GossipErrors.Add(1)
	case strings.Contains(s, "[WARN]"):
		l.count.GossipWarnings.Add(1)
	default:
		return len(line), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.at) >= time.Second {
		l.last, l.at = strings.TrimSpace(s), now
	}
	return len(line), nil
}

func (l *gossipLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
