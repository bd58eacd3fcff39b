// Package config turns the one TOML file that is the same on every node into types that
// cannot be invalid: code with a *Config need not check it again.
//
// Every error is one line. It begins with FILE:LINE (FILE alone if no line is to blame)
// and says what is wrong and what would be right.
package config

import (
	"net/netip"
	"time"
)

// Config is a whole, checked configuration. Its zero value is not valid; Load and Parse
// make valid ones.
type Config struct {
	File       string // path it was read from, for messages only
	Cluster    string // gossip label; messages with another label are ignored
	KeyFile    string // absolute path, for LoadKeyring
	Port       uint16 // heartbeats and gossip, UDP and TCP
	Fence      Fence
	Failback   Failback
	Survivor   Survivor
	Timing     Timing
	Nodes      []Node // in file order, which breaks ties (design §4.8)
	SIP        SIP
	FreeSWITCH FreeSWITCH
	Checks     []Check  // in file order
	VIPs       []VIP    // in file order
	Roles      []Role   // in file order
	Actions    []Action // cluster-wide: run on every node
	Notify     []Notify
	Mail       Mail
	Announce   Announce
	Control    Control
}

// Fence is how the kernel ends a lease, agent or no agent (design §5.2).
type Fence string

// The values of Fence.
const (
	FenceAuto     Fence = "auto"     // both, as far as available
	FenceBPF      Fence = "bpf"      // programs on every device; without them the agent does not start
	FenceLifetime Fence = "lifetime" // addresses with a lifetime, renewed
	FenceNone     Fence = "none"
)

// Failback says whether a VIP returns to a preferred node by itself.
type Failback string

// The two values of Failback.
const (
	FailbackManual Failback = "manual" // only by `sipalive failback`
	FailbackAuto   Failback = "auto"   // once the node has been fit for Timing.FailbackAfter
)

// Survivor says whether a node may hold without a majority (design §4.6).
type Survivor string

// The values of Survivor.
const (
	SurvivorAuto   Survivor = "auto"   // with three or more voters, only if the gateway relays between the nodes
	SurvivorAlways Survivor = "always" // without that relay too, at the risk of two holders in a split
	SurvivorNever  Survivor = "never"
)

// Timing holds every interval of the protocol (design §4).
type Timing struct {
	Heartbeat     time.Duration // h: between two heartbeats to each peer
	Lease         time.Duration // T: Lease*0.999 - Margin() is at least two heartbeats
	SurvivorAfter time.Duration // with three or more voters: after so long without a majority
	HoldDown      time.Duration // how long a recovered node must stay fit
	Settle        time.Duration // cold start: how long a VIP waits for its preferred nodes
	Stagger       time.Duration // between candidates in rank
	FailbackAfter time.Duration // with FailbackAuto: how long the node must be fit
	Exclude       time.Duration // for how long a node that failed to verify a VIP is excluded
}

// Margin is m of design §4.1: how much earlier the holder's own lease ends.
func (t Timing) Margin() time.Duration { return max(10*time.Millisecond, t.Lease/20) }

// Node is a machine that runs an agent.
type Node struct {
	Name     string
	Address  netip.Addr // static; for heartbeats and SIP probes
	Address2 netip.Addr // second path for heartbeats; the zero Addr: none
	Voter    bool       // grants leases
	Holder   bool       // may hold VIPs; false: a witness
	Capacity int        // relative, at least 1
}

// SIP says how the PBX of each node is watched.
type SIP struct {
	Targets       []Target      // at least one is on the node
	UserAgent     string        // printable ASCII, not empty
	Verify        bool          // OPTIONS to the VIP after a takeover (design §5.5)
	VerifyTimeout time.Duration // if Verify is set, at least every target's Timeout
	TLSVerify     bool          // for TLS targets: check chain and dates, but no name
	TLSCA         string        // absolute path of the authorities for TLS targets, PEM; "": the system's
	SelfInterval  time.Duration // the values of [sip]; each target has its own
	PeerInterval  time.Duration
}

// OnNode returns the targets on the node itself, which decide whether it is fit.
func (s SIP) OnNode() []Target { return s.on(OnNode) }

// OnVIP returns the targets on a VIP, probed by its holder.
func (s SIP) OnVIP(name string) []Target { return s.on(name) }

func (s SIP) on(where string) (out []Target) {
	for _, t := range s.Targets {
		if t.On == where {
			out = append(out, t)
		}
	}
	return out
}

// OnNode is the On of a Target that is on no VIP. No VIP may have that name.
const OnNode = "node"

// Target is one SIP listener, on every holder node or on one VIP, with all defaults
// filled in.
type Target struct {
	Name           string
	Transport      string // udp, tcp or tls
	Port           uint16
	On             string        // OnNode, or the name of a VIP
	SelfInterval   time.Duration // between probes of this node itself
	PeerInterval   time.Duration // between probes of another node
	Timeout        time.Duration // for an answer, with one retransmission
	Fall           int           // unanswered probes until down, at least 1; a refused port counts at once
	Rise           int           // answered probes until up, at least 1
	UnhealthyCodes []int         // sorted, each once, 100..699; any other answer means alive
}

// FreeSWITCH is the local event socket, for freeswitch actions and readiness.
type FreeSWITCH struct {
	Address      string // host:port
	PasswordFile string // absolute path
	ReadyCheck   bool   // ask it whether it is ready, besides OPTIONS
}

// Check is a further check of a node's health: a program with the exit codes of
// monitoring plugins.
type Check struct {
	Name     string
	Exec     []string // absolute path and arguments, no shell
	Interval time.Duration
	Timeout  time.Duration // at most Interval
	Fall     int           // exits with 2 in a row until the node is unfit, at least 1
}

// VIP is a floating IP address with a name.
type VIP struct {
	Name      string
	Address   netip.Addr // bound as /32 or /128
	Interface string     // "": the interface of the node's address
	Prefer    []string   // node names, best first; none is a witness
	Weight    int        // share of the load, at least 1
	Gateway   netip.Addr // router asked for proof (design §5.4), of Address's family, without a zone; the zero Addr: the next hop of the default route on Interface
	Announce  bool       // false: a provider's API moves the address
	Actions   []Action   // in order

	interfaceLine int
}

// Role is a lease without an address.
type Role struct {
	Name        string
	PreferSpare bool     // prefer a node that holds no VIP; Prefer is then empty
	Prefer      []string // node names, best first
	Actions     []Action // in order
}

// Notice is an event that people can be notified of.
type Notice string

// The notices.
const (
	NoticeTakeover     Notice = "takeover"      // from the new holder, with cause and duration
	NoticeVacant       Notice = "vacant"        // nobody holds a VIP
	NoticeAllUnfit     Notice = "all_unfit"     // no node is fit, or that is over
	NoticeRival        Notice = "rival"         // another machine claims a VIP
	NoticeUnreachable  Notice = "unreachable"   // the router was not seen to follow
	NoticeFenceMissing Notice = "fence_missing" // this node starts without a fence that keeps the promise of one holder
)

var notices = []Notice{NoticeTakeover, NoticeVacant, NoticeAllUnfit, NoticeRival, NoticeUnreachable, NoticeFenceMissing}

// Notify is one way to tell people. Exactly one of Mail, HTTP and Exec is set.
type Notify struct {
	Events []Notice // at least one
	Mail   []string
	HTTP   string
	Exec   []string
}

// Mail is the mail server that takes the mail.
type Mail struct {
	Server       string // host:port
	TLS          MailTLS
	User         string // "": no login
	PasswordFile string // absolute path; with User only
	From         string
}

// MailTLS says how much encryption the mail server must offer.
type MailTLS string

// The values of MailTLS.
const (
	MailTLSNone          MailTLS = "none"
	MailTLSOpportunistic MailTLS = "opportunistic" // if offered; certificates are not checked
	MailTLSRequired      MailTLS = "required"      // with a valid certificate
)

// Action is one step of a takeover. Exactly one of Exec, FreeSWITCH, Memcached and HTTP
// is not empty.
type Action struct {
	On         Phase
	Exec       []string      // absolute path and arguments, no shell
	User       string        // user that Exec runs as; "": the agent's own, without its capabilities
	FreeSWITCH []string      // event-socket api commands, in order, one line each
	Memcached  []string      // host:port, flush_all on each server
	HTTP       string        // URL that the event is posted to as JSON
	SecretFile string        // absolute path; "": HTTP is not signed
	Timeout    time.Duration // for the whole action, each time it is tried
	Retries    int           // after a failure, with growing pauses
	OnFailure  OnFailure
	When       []Cause // causes it runs for; empty: all
}

// OnFailure is what happens once an action has failed for good.
type OnFailure string

// The two values of OnFailure.
const (
	OnFailureContinue OnFailure = "continue" // go on with the next action
	OnFailureRelease  OnFailure = "release"  // ask another node to hold the VIP or role, if there is one
)

// Cause is why a takeover happens.
type Cause string

// The causes that actions can distinguish.
const (
	CauseMove  Cause = "move"  // planned, whoever asked for it
	CauseCrash Cause = "crash" // the holder fell silent
	CauseSIP   Cause = "sip"   // the holder's PBX did not answer
	CauseBoot  Cause = "boot"  // nobody has held it since the cluster started
)

// Verb is the action's key in the file: exec, freeswitch, memcached or http.
func (a Action) Verb() string {
	switch {
	case len(a.Exec) > 0:
		return "exec"
	case len(a.FreeSWITCH) > 0:
		return "freeswitch"
	case a.HTTP != "":
		return "http"
	default:
		return "memcached"
	}
}

// Phase is when an action runs (design §4.4 and §5.5).
type Phase string

// The phases.
const (
	Prepare Phase = "prepare" // on the successor, before a planned move
	Acquire Phase = "acquire" // on the new holder, once the address is bound and announced
	Release Phase = "release" // on the old holder, once the address is unbound
	Retire  Phase = "retire"  // on the old holder, once the successor's acquire actions ended
	Failed  Phase = "failed"  // on the node whose takeover failed
	// Unreachable runs on the holder when the router was not seen to follow.
	Unreachable Phase = "unreachable"
	// Flush belongs to no VIP: it runs on every node when an operator asks.
	Flush Phase = "flush"
)

// phases lists the phases of a VIP or role, in the order of a takeover.
var phases = []Phase{Prepare, Acquire, Release, Retire, Failed, Unreachable}

// Announce says how the network is kept informed (design §5.3).
type Announce struct {
	Refresh time.Duration // between announcements of a held VIP
	Limit   int           `json:",omitzero"` // frames a second on one interface, first announcements included; 0: first announcements never wait
}

// Control is the unix socket, and what people and Prometheus may read over TCP.
type Control struct {
	Listen netip.AddrPort // address of metrics and status page, read-only; invalid: none
	Public bool           // Listen need not be loopback
	Group  string         // group that may use the socket besides root; "": root only
}

// Node returns the node with that name, or nil.
func (c *Config) Node(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}
