package elect

import "time"

// Status is a copy of what the machine knows, for people and tests.
type Status struct {
	Self     Node
	Quorum   bool // a majority of the active list's voters is heard
	Quiet    bool // this voter grants nothing yet (§4.5)
	QuietEnd Instant
	Lists    Lists
	Waiting  string // why the file's voter list is not active yet; empty if it is active
	AllUnfit bool
	Drained  bool
	Nodes    []NodeStatus
	VIPs     []VIPStatus
}

// NodeStatus is one node as seen from here.
type NodeStatus struct {
	Name       Node
	Alive      bool
	Fit        bool
	Unfit      string   // why not, in words
	SIP        SIPState // the node's own verdict where one is heard, else this node's
	Seen       SIPState // this node's own verdict
	Witness    bool     // holds no VIP, so it is never fit
	Drained    bool
	HeldDown   bool
	Frozen     time.Duration // for how long still; 0: not frozen
	Views      []Observation // the verdict of each live node, its own included, about its PBX
	SameConfig bool
	LastHeard  Instant
	Holds      []VIPID
	ByRelay    bool // heard through the gateway alone
	Relay      bool // the gateway relays between that node and this one, as far as known (§4.6)
}

// VIPState is the state of a VIP as seen from here.
type VIPState uint8

// The states of `status --json` (§8).
const (
	Vacant VIPState = iota
	Held
	Moving
	Surviving
)

func (s VIPState) String() string {
	return [...]string{"vacant", "held", "moving", "survivor"}[min(s, Surviving)]
}

// VIPStatus is one VIP or role as seen from here.
type VIPStatus struct {
	ID       VIPID
	Holder   Node
	Epoch    Epoch
	Since    Instant
	State    VIPState
	Cause    Cause
	Why      Why
	Checked  bool
	Verified bool
	Router   RouterState
	Reason   string  // why this node holds it, or why none does
	Until    Instant // if this node holds it: the end of the lease
}
