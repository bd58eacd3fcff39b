// Package config turns the one TOML file that is the same on every node into
// types that cannot be invalid: whoever holds a *Config need not check it again.
//
// Every error is one line that begins with FILE:LINE (FILE alone where no line
// is to blame) and says what is wrong and what would be right.
package config

import (
	"net/netip"
	"time"
)

// Config is a whole, checked configuration. Its zero value is not valid; Load
// and Parse make it.
type Config struct {
	File       string // where it was read, for messages only
	Cluster    string // gossip label; clusters with other labels are ignored
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
	Actions    []Action // cluster-wide: on every node
	Notify     []Notify
	Mail       Mail
	Announce   Announce
	Control    Control
}

// Fence is what ends a lease in the kernel, agent or no agent (design §5.2).
type Fence string

// The values of Fence.
const (
	FenceAuto     Fence = "auto"     // both, as far as they are to be had
	FenceBPF      Fence = "bpf"      // programs on every device, or the agent does not start
	FenceLifetime Fence = "lifetime" // addresses with a lifetime, renewed
	FenceNone     Fence = "none"
)

// Failback says whether a VIP returns to a preferred node by itself.
type Failback string

// The two values of Failback.
const (
	FailbackManual Failback = "manual" // only `sipalive failback` does it
	FailbackAuto   Failback = "auto"   // once the node was fit for Timing.FailbackAfter
)

// Survivor says whether a node may hold without a majority (design §4.6).
type Survivor string

// The values of Survivor.
const (
	SurvivorAuto   Survivor = "auto"   // with three or more voters only where the gateway relays between the nodes
	SurvivorAlways Survivor = "always" // there too, at the risk of two holders in a split
	SurvivorNever  Survivor = "never"
)

// Timing holds every interval of the protocol (design §4).
type Timing struct {
	Heartbeat     time.Duration // h: one heartbeat per peer
	Lease         time.Duration // T: Lease*0.999 - Margin() is at least two heartbeats
	SurvivorAfter time.Duration // three or more voters: without a majority for this long
	HoldDown      time.Duration // a recovered node must stay fit this long
	Settle        time.Duration // cold start: how long a VIP waits for its preferred nodes
	Stagger       time.Duration // between candidates in rank
	FailbackAfter time.Duration // FailbackAuto: fit for this long
	Exclude       time.Duration // a node that failed verification of a VIP
}

// Margin is m of design §4.1: what a holder's lease ends early.
func (t Timing) Margin() time.Duration { return max(10*time.Millisecond, t.Lease/20) }

// Node is a machine that runs an agent.
type Node struct {
	Name     string
	Address  netip.Addr // static: heartbeats and SIP probes
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
	VerifyTimeout time.Duration // at least every target's Timeout where Verify is set
	TLSVerify     bool          // of targets over TLS: chain and dates, no name
	TLSCA         string        // absolute path of their authorities, PEM; "": the system's
	SelfInterval  time.Duration // the [sip] values; targets carry their own
	PeerInterval  time.Duration
}

// OnNode are the targets on the node itself, which say whether it is fit.
func (s SIP) OnNode() []Target { return s.on(OnNode) }

// OnVIP are the targets on a VIP, asked by its holder.
func (s SIP) OnVIP(name string) []Target { return s.on(name) }

func (s SIP) on(where string) (out []Target) {
	for _, t := range s.Targets {
		if t.On == where {
			out = append(out, t)
		}
	}
	return out
}

// OnNode is where a Target is that is on no VIP; no VIP has that name.
const OnNode = "node"

// Target is one SIP listener, on every holder node or on one VIP, with all
// defaults filled in.
type Target struct {
	Name           string
	Transport      string // udp, tcp or tls
	Port           uint16
	On             string        // OnNode, or the name of a VIP
	SelfInterval   time.Duration // between probes of the own node
	PeerInterval   time.Duration // between probes of another node
	Timeout        time.Duration // one retransmission inside it
	Fall           int           // silent probes until down, at least 1; a refused port counts at once
	Rise           int           // answered probes until up, at least 1
	UnhealthyCodes []int         // sorted, each once, 100..699; any other answer is life
}

// FreeSWITCH is the local event socket, for freeswitch actions and readiness.
type FreeSWITCH struct {
	Address      string // host:port
	PasswordFile string // absolute path
	ReadyCheck   bool   // ask it whether it is ready, beside OPTIONS
}

// Check is one further question to a node's health: a program with the exit codes
// of monitoring plugins.
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
	Weight    int        // load, at least 1
	Gateway   netip.Addr // router asked for proof (design §5.4), of Address's family, without a zone; the zero Addr: next hop of the default route there
	Announce  bool       // false: a provider's API moves the address
	Actions   []Action   // in order

	interfaceLine int
}

// Role is a lease without an address.
type Role struct {
	Name        string
	PreferSpare bool     // a node that holds no VIP comes first; Prefer is then empty
	Prefer      []string // node names, best first
	Actions     []Action // in order
}

// Notice is what people can be told of.
type Notice string

// The notices.
const (
	NoticeTakeover     Notice = "takeover"      // by the new holder, with cause and duration
	NoticeVacant       Notice = "vacant"        // nobody holds a VIP
	NoticeAllUnfit     Notice = "all_unfit"     // no node is fit, or that is over
	NoticeRival        Notice = "rival"         // another machine claims a VIP
	NoticeUnreachable  Notice = "unreachable"   // the router was not shown to follow
	NoticeFenceMissing Notice = "fence_missing" // this node starts without a fence that holds the promise
)

var notices = []Notice{NoticeTakeover, NoticeVacant, NoticeAllUnfit, NoticeRival, NoticeUnreachable, NoticeFenceMissing}

// Notify is one way to tell people. Exactly one of Mail, HTTP and Exec is given.
type Notify struct {
	Events []Notice // at least one
	Mail   []string
	HTTP   string
	Exec   []string
}

// Mail is where mail is handed in.
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
	MailTLSOpportunistic MailTLS = "opportunistic" // if offered; no certificate is checked
	MailTLSRequired      MailTLS = "required"      // with a good certificate
)

// Action is one step of a takeover. Exactly one of Exec, FreeSWITCH, Memcached
// and HTTP is not empty.
type Action struct {
	On         Phase
	Exec       []string      // absolute path and arguments, no shell
	User       string        // whom Exec runs as; "": the agent's own, without its capabilities
	FreeSWITCH []string      // event-socket api commands, in order, one line each
	Memcached  []string      // host:port, flush_all on each server
	HTTP       string        // URL that gets the event as JSON
	SecretFile string        // absolute path; "": HTTP is not signed
	Timeout    time.Duration // of the whole action, each time it is tried
	Retries    int           // after a failure, with growing pauses
	OnFailure  OnFailure
	When       []Cause // runs for these alone; empty: for all
}

// OnFailure is what follows once an action has failed for good.
type OnFailure string

// The two values of OnFailure.
const (
	OnFailureContinue OnFailure = "continue" // the next action
	OnFailureRelease  OnFailure = "release"  // another node is asked to hold it, if there is one
)

// Cause is why a takeover happens.
type Cause string

// The causes that actions tell apart.
const (
	CauseMove  Cause = "move"  // planned, by whomever
	CauseCrash Cause = "crash" // the holder fell silent
	CauseSIP   Cause = "sip"   // the holder's PBX did not answer
	CauseBoot  Cause = "boot"  // nobody held it since the cluster started
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

// The phases built so far.
const (
	Prepare Phase = "prepare" // on the successor, before a planned move
	Acquire Phase = "acquire" // on the new holder, once the address is bound and announced
	Release Phase = "release" // on the old holder, once the address is unbound
	Retire  Phase = "retire"  // on the old holder, once the successor's acquire actions ended
	Failed  Phase = "failed"  // on the node whose takeover failed
	// Unreachable runs on the holder that the router was not shown to follow.
	Unreachable Phase = "unreachable"
	// Flush belongs to no VIP: it runs on every node when an operator asks.
	Flush Phase = "flush"
)

// phases are those of a VIP or role, in the order of a takeover.
var phases = []Phase{Prepare, Acquire, Release, Retire, Failed, Unreachable}

// Announce says how the network is kept informed (design §5.3).
type Announce struct {
	Refresh time.Duration // between announcements of a held VIP
	Limit   int           `json:",omitzero"` // frames a second by one interface, first announcements included; 0: those never wait
}

// Control is the unix socket, and what people and Prometheus may read over TCP.
type Control struct {
	Listen netip.AddrPort // metrics and status page, read-only; invalid: none
	Public bool           // Listen may be another address than loopback
	Group  string         // may use the socket besides root; "": root only
}

// Node returns the node of that name, nil where there is none.
func (c *Config) Node(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}
