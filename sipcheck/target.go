package sipcheck

import (
	"net/netip"
	"slices"
	"time"
)

// Defaults for a Target's zero fields; the same as in reference.toml for a peer.
const (
	DefaultInterval  = time.Second
	DefaultTimeout   = 400 * time.Millisecond
	DefaultFall      = 3
	DefaultRise      = 3
	DefaultUserAgent = "sipalive"
)

// Target is one SIP server on one node, and how it is probed.
type Target struct {
	Node      string         // the node it runs on
	Name      string         // the name of the [[sip.target]]
	Address   netip.AddrPort // where OPTIONS are sent
	Transport Transport      // UDP, TCP or TLS

	Interval time.Duration // from one probe's start to the next one's
	Timeout  time.Duration // how long one probe waits, connecting included; over UDP the packet is repeated meanwhile
	Fall     int           // probes in a row without a good answer until the target is down
	Rise     int           // good answers in a row until the target is up again

	UnhealthyCodes []int  // codes that do not count as healthy, e.g. 503
	UserAgent      string // a neutral name: servers drop packets with the names of scanners
}

// withDefaults replaces values that are zero or negative, so that no value can make a
// prober spin or wait forever.
func (t Target) withDefaults() Target {
	if t.Interval <= 0 {
		t.Interval = DefaultInterval
	}
	if t.Timeout <= 0 {
		t.Timeout = DefaultTimeout
	}
	if t.Fall <= 0 {
		t.Fall = DefaultFall
	}
	if t.Rise <= 0 {
		t.Rise = DefaultRise
	}
	if t.UserAgent == "" {
		t.UserAgent = DefaultUserAgent
	}
	t.UnhealthyCodes = slices.Clone(t.UnhealthyCodes)
	return t
}

// Verdict is the judgement of a target after all probes so far.
type Verdict int

const (
	Unknown   Verdict = iota // not enough probes yet
	Up                       // the target answers
	Silent                   // Fall probes in a row stayed unanswered
	Refused                  // nothing listens on the port: one refused probe is enough
	Unhealthy                // the target answers, but with a listed code, Fall times in a row
)

func (v Verdict) String() string {
	switch v {
	case Up:
		return "up"
	case Silent:
		return "silent"
	case Refused:
		return "refused"
	case Unhealthy:
		return "unhealthy"
	}
	return "unknown"
}

// Outcome is how one probe ended.
type Outcome int

const (
	Unanswered  Outcome = iota // no answer within the timeout, or the probe could not be sent
	Answered                   // a response whose code is not listed
	Listed                     // a response with one of the UnhealthyCodes
	PortRefused                // ICMP port unreachable, twice, or a TCP reset in answer to the SYN
)

func (o Outcome) String() string {
	switch o {
	case Answered:
		return "answered"
	case Listed:
		return "unhealthy code"
	case PortRefused:
		return "port refused"
	}
	return "unanswered"
}

// Answer is one SIP response to a probe. Phrase and Server come from the network; they
// are cut to 100 bytes, printable characters only.
type Answer struct {
	Code   int           // 100 to 699
	Phrase string        // the reason phrase
	Server string        // the Server header, or else User-Agent, or else ""
	RTT    time.Duration // since the probe's first packet; over TCP and TLS since it was written
	Listed bool          // Code is one of the target's UnhealthyCodes

	Connect     time.Duration // how long the connection took to open, TLS handshake included; 0 over UDP
	Certificate *Certificate  // the server's certificate; nil without TLS
}

// Result is what a prober delivers. The embedded Answer is zero if the probe was not
// answered.
type Result struct {
	Answer
	Target   Target
	Verdict  Verdict
	Previous Verdict // the verdict before this probe
	Changed  bool    // Verdict != Previous
	Outcome  Outcome // outcome of this probe
	Asked    bool    // Probe or ProbeNow asked for this probe
	Misses   int     // probes in a row without a good answer; 1 means a suspicion
	Err      error   // why no answer came; nil when one did
	Started  time.Time
	At       time.Time // when the probe ended
	Since    time.Time // when the first of the probes began that Verdict rests on; for silence, the first of Fall probes
}

// Stats are counts since the prober was made.
type Stats struct {
	Sent       uint64 // packets, retransmissions included
	SendErrors uint64 // packets that this host could not send
	Answered   uint64 // probes answered, listed codes included
	Refused    uint64 // probes refused
	Timeouts   uint64 // probes unanswered
	Malformed  uint64 // messages dropped: not a SIP response, or an incomplete one
	Late       uint64 // SIP messages dropped: not about the probe under way
	LastRTT    time.Duration
	LastAnswer time.Time // time of the last good answer; zero: none yet
	LastErr    error     // the last error of this host's own socket, or of a connection
}
