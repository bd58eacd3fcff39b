package doctor

import (
	"net/netip"
	"time"

	"sipalive/config"
	"sipalive/control"
)

// Facts are what was found out about the machine. A nil pointer, map or Config is
// unknown.
type Facts struct {
	File     string
	Config   *config.Config
	FileErr  error
	Keys     int // in the key file
	KeyErr   error
	Self     *config.Node
	SelfErr  error
	Links    map[string]Link // by name: the interfaces of the node's address and of the VIPs
	Agent    *Agent
	Gossip   time.Duration // between two gossip pings; each goes to one peer in turn
	Clock    *Clock
	Ports    []Port
	Firewall *Firewall
	Drifts   []Drift
	Gateways map[string]netip.Addr // by VIP: the router asked for proof; invalid: none
	Probes   []Probe
	PBX      *PBX
	Nonlocal map[string]string // "ipv4" and "ipv6": net.*.ip_nonlocal_bind
	Served   map[string]Served // by VIP: how this machine listens for its targets
	Keepers  []Keeper
	Unread   []error               // files of other keepers that could not be read
	Bound    map[netip.Addr]string // addresses of this machine, with their interface
}

// Link is one interface.
type Link struct {
	Exists   bool
	Running  bool // up, with a carrier
	Prefixes []netip.Prefix
}

// Agent is the agent that runs here, or why no agent answers.
type Agent struct {
	Err     error // why no agent answers
	Status  control.Status
	Unseen  bool     // the agent answers, but its process was not found
	Missing []string // capabilities out of Needed that the agent lacks; without an agent, that this process lacks
}

// Needed are the agent's capabilities: first those it cannot run without, then those it
// can.
var Needed = []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"}

// Clock is the kernel's clock.
type Clock struct {
	Err     error   // adjtimex failed: Steered and Synced mean nothing
	Source  string  // /sys/devices/system/clocksource/clocksource0/current_clocksource
	Steered float64 // by how many parts per million the clock is sped up (adjtimex)
	Synced  bool
	Stalled bool // CLOCK_BOOTTIME did not advance along with CLOCK_MONOTONIC
}

// Port is the agents' port between this node and another.
type Port struct {
	Node    string
	Address netip.Addr
	Second  bool  // this is its address2, where only TCP is tested
	TCP     error // why no TCP connection to its port was possible
	Asked   bool  // no agent runs here, so doctor used its port to listen and to ask over UDP
	AskErr  error // why doctor could not use the port
	Heard   bool  // if Asked: a packet of the other agent came unasked
	Foreign bool  // if Asked: a packet came that none of our keys opens, or for another cluster
	Answers bool  // if Asked: it answered a question over UDP
}

// Firewall is the rule set of nftables.
type Firewall struct {
	Rules  *Ruleset
	Err    error    // why it could not be read
	Legacy []string // tables of legacy iptables, which doctor does not look at
}

// Drift is how much faster another node's clock runs than this one's.
type Drift struct {
	Node string
	PPM  float64
	Fine float64 // uncertainty of the measurement, in ppm
	Err  error
}

// Probe is the result for one SIP target as this node sees it, by the agent's rules.
type Probe struct {
	Who, What, Word, Why string
	Bad                  bool
}

// PBX is FreeSWITCH on this node, as seen through its event socket.
type PBX struct {
	Err       error // not reached, or password refused
	Used      bool  // the file has actions or a check that need the event socket
	Sofia     *Sofia
	SofiaErr  error
	Address   string
	PasswdErr error // others can read the password file
}

// Served is how a program on this machine listens for a VIP.
type Served int

// A program that listens on all addresses over UDP may answer from another address than
// the one asked. Kamailio does (measured), and a phone then hears nothing.
const (
	Unserved   Served = iota
	Wildcard          // over UDP, on all addresses
	Present           // on the VIP, which is here now: it may have had to wait for it
	Beforehand        // on the VIP before it is here, or over TCP on all addresses
)

// Keeper is another program that puts a VIP on this machine.
type Keeper struct {
	Program string // keepalived, systemd-networkd, NetworkManager, ifupdown, netplan
	File    string
	VIP     string // name of the VIP
	Running bool
}
