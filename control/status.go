package control

// Status is the document of `status --json`: the fields down to VIPs are
// docs/design.md §8 and stay as they are, the rest are extensions that are
// absent while there is nothing to say.
type Status struct {
	Cluster string       `json:"cluster"`
	Node    string       `json:"node"` // who answers
	Quorum  bool         `json:"quorum"`
	Fence   string       `json:"fence"` // bpf+lifetime, bpf, lifetime or none (§5.2)
	Nodes   []NodeStatus `json:"nodes"` // in configured order
	VIPs    []VIPStatus  `json:"vips"`  // in configured order

	Roles      []RoleStatus      `json:"roles,omitempty"`
	Locks      []LockStatus      `json:"locks,omitempty"`       // in use, by name
	Quiet      bool              `json:"quiet,omitempty"`       // this voter grants nothing yet (§4.5)
	Waiting    string            `json:"waiting,omitempty"`     // why the file's voter list is not taken yet (§4.9)
	FenceMeans string            `json:"fence_means,omitempty"` // what the fence does, and what is in the way of more
	FenceWeak  bool              `json:"fence_weak,omitempty"`  // it does not hold the promise of one holder, or not everywhere
	AllUnfit   bool              `json:"all_unfit,omitempty"`   // no node is fit: nobody moves (§4.7)
	Counters   map[string]uint64 `json:"counters,omitempty"`

	Scheduling   string `json:"scheduling,omitempty"`    // the agent's policy and realtime priority, "rr 95" or "other"
	MemoryLocked bool   `json:"memory_locked,omitempty"` // its pages stay in memory

	FailbackAuto bool   `json:"failback_auto,omitempty"` // what is away comes home by itself
	Lease        Millis `json:"lease_ms,omitempty"`      // how long one is granted for

	// KeyRotation is each node that a key rotation has not ended for, in words.
	KeyRotation []string `json:"key_rotation,omitempty"`

	// SocketsUnwatched is why the kernel's notices of dying sockets do not come: a
	// dead SIP server is then noticed at the next probe.
	SocketsUnwatched string `json:"sockets_unwatched,omitempty"`

	// Takeovers are the newest ones of all nodes that the answering one knows of, oldest
	// first, as events --json has them but for what their actions printed.
	Takeovers []Event `json:"takeovers,omitempty"`
}

// NodeStatus is one node as the answering one sees it.
type NodeStatus struct {
	Name    string   `json:"name"`
	Address string   `json:"address"`
	Alive   bool     `json:"alive"`
	Fit     bool     `json:"fit"`
	SIP     string   `json:"sip"` // up, down or unknown
	Drained bool     `json:"drained"`
	Holds   []string `json:"holds"` // names of VIPs, then of roles; never null

	Why           string `json:"why,omitempty"`            // why it is not fit
	Witness       bool   `json:"witness,omitempty"`        // votes, holds no VIP, is never fit
	HeldDown      bool   `json:"held_down,omitempty"`      // came back lately, ranks last (§4.7)
	ConfigDiffers bool   `json:"config_differs,omitempty"` // runs another configuration
	ByRelay       bool   `json:"by_relay,omitempty"`       // heard through the gateway alone: the direct way is cut
	Relay         string `json:"relay,omitempty"`          // known or unknown: whether the gateway relays between it and the answering node (§4.6)
	Answered      Millis `json:"answered_ms,omitempty"`    // how long ago it answered the answering node over UDP: the agents' port is open both ways

	Keys       []string `json:"keys,omitempty"`        // names of its keys, the first one seals; as it told last
	UnknownKey bool     `json:"unknown_key,omitempty"` // the answering node has no key that opens its packets

	FrozenFor Millis         `json:"frozen_for_ms,omitempty"` // for how long still no SIP verdict takes a VIP from it
	Views     []View         `json:"views,omitempty"`         // what each node says of its PBX, itself included
	Targets   []TargetStatus `json:"targets,omitempty"`       // its SIP listeners as the answering node's own probes see them
	Checks    []CheckStatus  `json:"checks,omitempty"`        // the answering node's own
}

// View is one node's verdict about another's PBX: up, suspect (its last probe stayed
// unanswered), rising (it answers again, not often enough yet), silent, unready (its
// own checks say no), refused.
type View struct {
	From string `json:"from"`
	SIP  string `json:"sip"`
}

// TargetStatus is one SIP listener as this node's own probes see it. The round trips
// are of the last 128 answers.
type TargetStatus struct {
	Name    string `json:"name"`
	URI     string `json:"uri"`   // udp:5060
	State   string `json:"state"` // up, silent, refused, unhealthy or unknown
	Code    int    `json:"code,omitempty"`
	Phrase  string `json:"phrase,omitempty"`
	Misses  int    `json:"misses,omitempty"` // probes in a row without a good answer
	Error   string `json:"error,omitempty"`  // why the last one had none
	Answers uint64 `json:"answers"`
	Median  Millis `json:"rtt_median_ms"`
	P90     Millis `json:"rtt_p90_ms"`
	P99     Millis `json:"rtt_p99_ms"`
	Max     Millis `json:"rtt_max_ms"`
	Timeout Millis `json:"timeout_ms"`

	CertificateEnds    *Since `json:"certificate_ends,omitempty"` // over TLS
	CertificateProblem string `json:"certificate_problem,omitempty"`
}

// CheckStatus is one question of a node to itself.
type CheckStatus struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, warn, unfit, paused or unknown
	Text  string `json:"text,omitempty"`
	Unfit bool   `json:"unfit,omitempty"` // it makes the node unfit
}

// VIPStatus is one VIP as the answering node sees it. A vacant VIP has no
// holder and the last epoch known.
type VIPStatus struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Holder   string `json:"holder"`
	Epoch    uint64 `json:"epoch"`
	Since    Since  `json:"since"`
	State    string `json:"state"`  // held, moving, vacant or survivor
	Router   string `json:"router"` // proven, unproven or unknown (§5.4)
	Verified bool   `json:"verified"`
	Reason   string `json:"reason"`

	AwayFrom  string         `json:"away_from,omitempty"` // the first node in prefer, where another one holds it
	Unchecked bool           `json:"unchecked,omitempty"` // verification is off, or has not ended: Verified says nothing yet
	Targets   []TargetStatus `json:"targets,omitempty"`   // the listeners on it, where the answering node holds it
}

// RoleStatus is one role: a lease without an address (§4.8).
type RoleStatus struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"`
	Since  Since  `json:"since"`
	State  string `json:"state"`
	Reason string `json:"reason"`

	AwayFrom string `json:"away_from,omitempty"` // the first node in prefer, where another one holds it
}

// LockStatus is one lock in use (§4.10).
type LockStatus struct {
	Name   string `json:"name"`
	Holder string `json:"holder"` // empty: nobody now
	Epoch  uint64 `json:"epoch"`
	Since  Since  `json:"since"`

	Waiting       int    `json:"waiting,omitempty"`     // clients on the answering node
	KeptFor       string `json:"kept_for,omitempty"`    // the node that nobody else may hold it before, as the answering voter knows
	KeptForMillis Millis `json:"kept_for_ms,omitempty"` // for how long still, unless that node speaks
}

// normal returns the status with empty lists in place of absent ones, which a
// script may iterate over.
func (s Status) normal() Status {
	nodes := make([]NodeStatus, len(s.Nodes))
	copy(nodes, s.Nodes)
	for i := range nodes {
		if nodes[i].Holds == nil {
			nodes[i].Holds = []string{}
		}
	}
	s.Nodes = nodes
	if s.VIPs == nil {
		s.VIPs = []VIPStatus{}
	}
	return s
}

// self is the answering node's own entry.
func (s Status) self() (NodeStatus, bool) {
	for _, n := range s.Nodes {
		if n.Name == s.Node {
			return n, true
		}
	}
	return NodeStatus{}, false
}

// Holds reports whether the answering node holds the VIP or role of that name, a
// role that it is handing over no more; known is false where none is configured.
func (s Status) Holds(name string) (holds, known bool) {
	for _, v := range s.VIPs {
		if v.Name == name {
			return v.Holder == s.Node, true
		}
	}
	for _, r := range s.Roles {
		if r.Name == name {
			return r.Holder == s.Node && r.State != "moving", true // then its release actions end its job
		}
	}
	return false, false
}

// Spare reports whether the answering node is fit and holds no VIP. Roles do
// not count: jobs for the spare are roles themselves.
func (s Status) Spare() bool {
	self, ok := s.self()
	if !ok || !self.Fit {
		return false
	}
	for _, v := range s.VIPs {
		if v.Holder == s.Node {
			return false
		}
	}
	return true
}

// Plan is who would hold what, and why, if the nodes of Without were gone.
type Plan struct {
	Without []string     `json:"without"`
	VIPs    []PlannedVIP `json:"vips"` // roles included
}

// PlannedVIP is where one VIP or role would go.
type PlannedVIP struct {
	Name   string `json:"name"`
	Role   bool   `json:"role,omitempty"`
	Holder string `json:"holder"` // now; empty: nobody
	Would  string `json:"would"`  // then; empty: nobody
	Reason string `json:"reason"` // "pbx3: spare, first in prefer"
}

func (p Plan) normal() Plan {
	if p.Without == nil {
		p.Without = []string{}
	}
	if p.VIPs == nil {
		p.VIPs = []PlannedVIP{}
	}
	return p
}
