package doctor

import (
	"net/netip"
	"time"

	"sipalive/config"
	"sipalive/control"
)

// Facts are what was found out. A nil pointer, map or Config: it could not be.
type Facts struct {
	File     string
	Config   *config.Config
	FileErr  error
	Keys     int // in the key file
	KeyErr   error
	Self     *config.Node
	SelfErr  error
	Links    map[string]Link // by interface, those of the node's address and of the VIPs
	Agent    *Agent
	Gossip   time.Duration // between two pings of gossip, each of one peer in turn
	Clock    *Clock
	Ports    []Port
	Firewall *Firewall
	Drifts   []Drift
	Gateways map[string]netip.Addr // by VIP: who is asked for proof; invalid: nobody
	Probes   []Probe
	PBX      *PBX
	Nonlocal map[string]string // "ipv4" and "ipv6": net.*.ip_nonlocal_bind
	Served   map[string]Served // by VIP: how its targets are listened to here
	Keepers  []Keeper
	Unread   []error               // files of other keepers that could not be looked at
	Bound    map[netip.Addr]string // addresses of this machine: their interface
}

// Link is one interface.
type Link struct {
	Exists   bool
	Running  bool // up, with its carrier
	Prefixes []netip.Prefix
}

// Agent is the agent that runs here, or why none answers.
type Agent struct {
	Err     error // none answers
	Status  control.Status
	Unseen  bool     // it answers, but its process was not found
	Missing []string // capabilities that it lacks, of Needed; without an agent: this process lacks
}

// Needed are the capabilities that an agent cannot do without, and then those that
// it can.
var Needed = []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"}

// Clock is the kernel's.
type Clock struct {
	Err     error   // adjtimex was refused: Steered and Synced say nothing
	Source  string  // /sys/devices/system/clocksource/clocksource0/current_clocksource
	Steered float64 // parts per million that the clock is made to run faster (adjtimex)
	Synced  bool
	Stalled bool // CLOCK_BOOTTIME did not advance beside CLOCK_MONOTONIC
}

// Port is the agents' port between this node and another.
type Port struct {
	Node    string
	Address netip.Addr
	Second  bool  // its address2, of which only TCP is asked
	TCP     error // why no connection to its port is had
	Asked   bool  // no agent runs here, so its place was taken to listen and to ask
	AskErr  error // why its place was not to be had
	Heard   bool  // Asked: a packet of its agent came by itself
	Foreign bool  // Asked: what came from it is sealed with no key of ours, or for another cluster
	Answers bool  // Asked: it answered a question over UDP
}

// Firewall is nftables' rule set.
type Firewall struct {
	Rules  *Ruleset
	Err    error    // why it could not be read
	Legacy []string // tables of the old iptables, which are not looked at
}

// Drift is how much faster another node's clock runs than this one's.
type Drift struct {
	Node string
	PPM  float64
	Fine float64 // what the measure may be wrong by, in ppm
	Err  error
}

// Probe is one SIP target as this node finds it, by the rules of the agent.
type Probe struct {
	Who, What, Word, Why string
	Bad                  bool
}

// PBX is FreeSWITCH on this node, as its event socket tells.
type PBX struct {
	Err       error // not reached, or the password is not accepted
	Used      bool  // the file has actions or a check that need it
	Sofia     *Sofia
	SofiaErr  error
	Address   string
	PasswdErr error // the password file lets others read it
}

// Served is how something listens here for a VIP.
type Served int

// Over UDP, what listens on all addresses may answer from another one than was asked:
// Kamailio does (measured), and a phone hears nothing.
const (
	Unserved   Served = iota
	Wildcard          // over UDP on all addresses
	Present           // on the VIP, which is here: it may have waited for it
	Beforehand        // on the VIP before it is here, or over TCP on all addresses
)

// Keeper is something else that puts a VIP on this machine.
type Keeper struct {
	Program string // keepalived, systemd-networkd, NetworkManager, ifupdown, netplan
	File    string
	VIP     string // its name
	Running bool
}
