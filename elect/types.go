// Package elect decides who holds which VIP. It is a pure machine: no I/O, no clock, no
// goroutine, no logging and no random source of its own. Time and events come in through
// Step; everything that has to happen comes out as Effects. The protocol is
// docs/design.md §4; the section numbers in these comments are that file's.
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
	// Instance is a node's random number per boot (§4.2). 0 means none.
	Instance uint64
	// Nonce names one ready of one successor (§4.4). 0 means none.
	Nonce uint64
	// Seq numbers a node's packets; it rises across restarts of the agent
	// within one instance (§4.2).
	Seq uint64
	// Node is a node's configured name.
	Node string
	// VIPID is a VIP's canonical address, the RoleID of a role's name (§4.3) or the
	// LockID of a lock's name (§4.10).
	VIPID string
)

// RoleID is the identity of a role, which has no address.
func RoleID(name string) VIPID { return VIPID("role:" + name) }

// Add returns the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns how much later t is than u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// VoterList is a set of voters by name, sorted. Nil means that there is no list (§4.9).
type VoterList []Node

// NewVoterList returns names as a list, sorted and without duplicates.
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

// Equal reports whether both lists name the same voters. An absent list equals only an
// absent one.
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

// Majority is the smallest number of voters that is more than half of the list.
func (l VoterList) Majority() int { return len(l)/2 + 1 }

// Lists are a node's voter lists, as it tells them: the list in its file, and the active
// list, under which it asks and grants (§4.9).
type Lists struct {
	File   VoterList
	Active VoterList
}

// SIPState is one observer's verdict about a node's PBX.
type SIPState uint8

// The verdicts. SIPUnready and SIPRefused decide alone when they are a node's verdict
// about its own PBX (§4.7).
//   - SIPSuspect: the PBX was up, and its last probe stayed unanswered.
//   - SIPRising: the PBX was down and answers again, but not rise times yet.
//   - SIPSilent: fall probes brought no healthy answer.
//   - SIPUnready: a node says of itself, whatever OPTIONS says, that a check of its own
//     or FreeSWITCH says no.
//   - SIPRefused: the port is closed.
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

// Cause says why a VIP got a new holder. Its words stand in events and in
// SIPALIVE_REASON; an action's `when` has coarser words of its own.
type Cause uint8

// The causes of a takeover.
const (
	CauseNone     Cause = iota
	CauseBoot           // nobody has held it since the cluster started, as far as the new holder knows
	CauseCrash          // the holder fell silent and its lease ended
	CauseSIP            // the holder's PBX no longer answers
	CauseMove           // an operator asked
	CauseDrain          // the holder is drained
	CauseFailback       // its preferred node is back
	CauseVerify         // the holder ranks last for it: verification or an action failed, it could not be bound, or its link is dead
	CauseStop           // the holder's agent ends
	CauseCheck          // the holder's own checks say no
	causeEnd
)

func (c Cause) String() string {
	return [...]string{"none", "boot", "crash", "sip", "move", "drain", "failback", "verify", "stop", "check"}[min(c, causeEnd-1)]
}

// Why is the rule of §4.8 that gave a node its place.
type Why uint8

// The rules of placement.
const (
	WhyNone        Why = iota
	WhyHolds           // rule 1: a fit holder keeps its VIP
	WhyPrefer          // rule 2: first in prefer
	WhyPreferNext      // rule 2: in prefer, but not first
	WhySpare           // rule 3: holds nothing
	WhySparePrefer     // a role with prefer = "spare"
	WhyLoad            // rule 3: least load
	WhyHeldDown        // ranks last: its PBX has been well again only for a short time
	WhyExcluded        // ranks last: failed verification, could not bind the VIP, or its link is dead
	WhyDrained         // rule 4: drained
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
