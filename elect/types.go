// Package elect decides who holds which VIP. It is a pure machine: no I/O, no
// clock, no goroutine, no logging and no random source of its own. Time and
// events come in through Step, everything that has to happen comes out as
// Effects. The protocol is docs/design.md §4; section numbers below are its.
package elect

import (
	"slices"
	"time"
)

type (
	// Instant is a moment on this node's boot clock in nanoseconds. It is never
	// sent to a peer: two clocks share no zero (§4.1).
	Instant int64
	// Epoch numbers one acquisition of one VIP; every action carries it (§2).
	Epoch uint64
	// Instance is a node's random number per boot (§4.2). 0 is none.
	Instance uint64
	// Nonce names one ready of one successor (§4.4). 0 is none.
	Nonce uint64
	// Seq numbers a node's packets; it rises across restarts of the agent
	// within one instance (§4.2).
	Seq uint64
	// Node is a node's configured name.
	Node string
	// VIPID is a VIP's canonical address, or RoleID of a role's name (§4.3).
	VIPID string
)

// RoleID is the identity of a role, which has no address to be known by.
func RoleID(name string) VIPID { return VIPID("role:" + name) }

// Add returns the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns how much later t is than u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// VoterList is a set of voters by name, sorted. Nil is "none" (§4.9).
type VoterList []Node

// NewVoterList sorts names into a list.
func NewVoterList(names ...Node) VoterList {
	l := VoterList(slices.Clone(names))
	slices.Sort(l)
	return slices.Compact(l)
}

// Has reports whether n is a voter of the list.
func (l VoterList) Has(n Node) bool {
	_, found := slices.BinarySearch(l, n)
	return found
}

// Equal reports whether both lists name the same voters; a list that is
// absent equals only an absent one.
func (l VoterList) Equal(o VoterList) bool {
	return (l == nil) == (o == nil) && slices.Equal(l, o)
}

// Adjacent reports whether the lists differ by exactly one node: then any
// majority of one shares a voter with any majority of the other.
func (l VoterList) Adjacent(o VoterList) bool {
	if l == nil || o == nil {
		return false
	}
	only := 0
	for _, n := range l {
		if !o.Has(n) {
			only++
		}
	}
	for _, n := range o {
		if !l.Has(n) {
			only++
		}
	}
	return only == 1
}

// Majority is how many voters of the list are more than half of it.
func (l VoterList) Majority() int { return len(l)/2 + 1 }

// Lists is what a node tells of its voter lists: its file's, and the one it
// asks and grants under (§4.9).
type Lists struct {
	File   VoterList
	Active VoterList
}

// SIPState is one observer's verdict about a node's PBX.
type SIPState uint8

// The verdicts. Suspect is a PBX that was up and whose last probe stayed
// unanswered; Rising one that was down and answers again, not yet rise times;
// Silent is no (healthy) answer within fall probes; Unready is a node's word about
// itself, whatever OPTIONS says: a check of its own, or FreeSWITCH, says no; Refused
// is a closed port. The last two decide alone on one's own host (§4.7).
const (
	SIPUnknown SIPState = iota
	SIPUp
	SIPSuspect
	SIPRising
	SIPSilent
	SIPUnready
	SIPRefused
)

func (s SIPState) String() string {
	return [...]string{"unknown", "up", "suspect", "rising", "silent", "unready", "refused"}[min(s, SIPRefused)]
}

// Down reports whether the verdict speaks against the PBX.
func (s SIPState) Down() bool { return s == SIPSilent || s == SIPUnready || s == SIPRefused }

// Doubted reports whether the last probe brought no good answer.
func (s SIPState) Doubted() bool { return s == SIPSuspect || s.Down() }

// Cause says why a VIP got a new holder. The words stand in events and in
// SIPALIVE_REASON; an action's `when` has coarser ones of its own.
type Cause uint8

// The causes of a takeover.
const (
	CauseNone     Cause = iota
	CauseBoot           // nobody held it since the cluster started
	CauseCrash          // the holder fell silent and its lease ended
	CauseSIP            // the holder's PBX no longer answers
	CauseMove           // an operator asked
	CauseDrain          // the holder is drained
	CauseFailback       // its preferred node is back
	CauseVerify         // the VIP did not answer SIP at its holder
	CauseStop           // the holder's agent ends
	CauseCheck          // the holder's own checks say no
	causeEnd
)

func (c Cause) String() string {
	return [...]string{"none", "boot", "crash", "sip", "move", "drain", "failback", "verify", "stop", "check"}[min(c, causeEnd-1)]
}

// Why is the rule of §4.8 that put a node at its place.
type Why uint8

// The rules of placement.
const (
	WhyNone        Why = iota
	WhyHolds           // rule 1: a fit holder keeps its VIP
	WhyPrefer          // rule 2: first in prefer
	WhyPreferNext      // rule 2: in prefer, after nodes that cannot
	WhySpare           // rule 3: holds nothing
	WhySparePrefer     // a role with prefer = "spare"
	WhyLoad            // rule 3: least load
	WhyHeldDown        // ranks last: came back lately
	WhyExcluded        // ranks last: failed verification of this VIP
	WhyDrained         // rule 4: nobody else
	WhyAsked           // an operator moved it here
	WhyAlone           // a survivor: no other voter is heard (§4.6)
	whyEnd
)

func (w Why) String() string {
	return [...]string{
		"", "holds it", "first in prefer", "next in prefer", "spare", "spare, as preferred", "least load",
		"last resort: held down", "last resort: failed verification", "last resort: drained", "moved here by an operator",
		"last node standing",
	}[min(w, whyEnd-1)]
}
