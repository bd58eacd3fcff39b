package sipcheck

import (
	"net/netip"
	"slices"
	"time"
)

// Defaults of a Target's zero fields, the same as in reference.toml for a peer.
const (
	DefaultInterval  = time.Second
	DefaultTimeout   = 400 * time.Millisecond
	DefaultFall      = 3
	DefaultRise      = 3
	DefaultUserAgent = "sipalive"
)

// Target is one SIP server on one node, and how patiently it is asked.
type Target struct {
	Node      string         // whose server it is
	Name      string         // the [[sip.target]]'s name
	Address   netip.AddrPort // where OPTIONS goes to
	Transport Transport      // by what

	Interval time.Duration // from one probe's start to the next one's
	Timeout  time.Duration // how long one probe waits, connecting included; over UDP it is sent again meanwhile
	Fall     int           // probes in a row without a good answer until it is down
	Rise     int           // good answers in a row until it is up again

	UnhealthyCodes []int  // answers that are not life, e.g. 503
	UserAgent      string // neutral: servers drop the names of scanners
}

// withDefaults fills what is zero or makes no sense, so that no value can make
// a prober spin or wait for ever.
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

// Verdict is what is thought of a target after all probes so far.
type Verdict int

const (
	Unknown   Verdict = iota // not enough probes yet
	Up                       // it answers
	Silent                   // Fall probes in a row stayed unanswered
	Refused                  // nothing listens on the port: one probe is enough
	Unhealthy                // it answers, with a listed code, Fall times in a row
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
	Unanswered  Outcome = iota // no answer within the timeout, or it could not be sent
	Answered                   // any response that is not listed
	Listed                     // a response with one of the UnhealthyCodes
	PortRefused                // ICMP port unreachable, twice, or a TCP reset to the connection request
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

// Answer is one SIP response to a probe. Phrase and Server come from the
// network: cut to 100 bytes of printable characters.
type Answer struct {
	Code   int           // 100 to 699
	Phrase string        // the reason phrase
	Server string        // the Server header, else User-Agent, else ""
	RTT    time.Duration // since the probe's first packet; over TCP and TLS since it was written
	Listed bool          // Code is one of the target's UnhealthyCodes

	Connect     time.Duration // what the connection had cost, its TLS handshake included; 0 over UDP
	Certificate *Certificate  // of the server; nil without TLS
}

// Result is what a prober delivers. The embedded Answer is zero unless the
// probe was answered.
type Result struct {
	Answer
	Target   Target
	Verdict  Verdict
	Previous Verdict // the verdict before this probe
	Changed  bool    // Verdict != Previous
	Outcome  Outcome // of this probe
	Asked    bool    // the probe was asked for, by Probe or ProbeNow
	Misses   int     // probes in a row without a good answer; 1 is a suspicion
	Err      error   // why no answer came; nil when one did
	Started  time.Time
	At       time.Time // when the probe ended
	Since    time.Time // when the first of the probes that Verdict rests on began: Fall of them for silence
}

// Stats counts since the prober was made. Packets, not probes, for Sent.
type Stats struct {
	Sent       uint64 // packets, retransmissions included
	SendErrors uint64 // packets that this host could not send
	Answered   uint64 // probes answered, listed codes included
	Refused    uint64 // probes refused
	Timeouts   uint64 // probes unanswered
	Malformed  uint64 // datagrams dropped: not a SIP response, or not a whole one
	Late       uint64 // SIP datagrams dropped: not about the probe under way
	LastRTT    time.Duration
	LastAnswer time.Time // of the last good answer; zero: none yet
	LastErr    error     // the last error of this host's own socket, or of a connection
}
