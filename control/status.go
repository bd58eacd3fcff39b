package control

// Status is the document of `status --json`. The fields down to VIPs are defined in
// docs/design.md §8 and must not change. The rest are extensions, absent while empty.
type Status struct {
	Cluster string       `json:"cluster"`
	Node    string       `json:"node"` // the node that answers
	Quorum  bool         `json:"quorum"`
	Fence   string       `json:"fence"` // bpf+lifetime, bpf, lifetime or none (§5.2)
	Nodes   []NodeStatus `json:"nodes"` // in configured order
	VIPs    []VIPStatus  `json:"vips"`  // in configured order

	Roles      []RoleStatus      `json:"roles,omitempty"`
	Locks      []LockStatus      `json:"locks,omitempty"`       // in use, by name
	Quiet      bool              `json:"quiet,omitempty"`       // this voter grants nothing yet (§4.5)
	Waiting    string            `json:"waiting,omitempty"`     // why the file's voter list is not in use yet (§4.9)
	FenceMeans string            `json:"fence_means,omitempty"` // what the fence does, and what prevents a better one
	FenceWeak  bool              `json:"fence_weak,omitempty"`  // the fence does not guarantee the promise of one holder, or not everywhere
	AllUnfit   bool              `json:"all_unfit,omitempty"`   // no node is fit: nobody moves (§4.7)
	Counters   map[string]uint64 `json:"counters,omitempty"`

	Scheduling   string `json:"scheduling,omitempty"`    // the agent's policy and realtime priority, "rr 95" or "other"
	MemoryLocked bool   `json:"memory_locked,omitempty"` // the agent's pages stay in memory

	FailbackAuto bool   `json:"failback_auto,omitempty"` // VIPs and roles away from home come home by themselves
	Lease        Millis `json:"lease_ms,omitempty"`      // how long a lease is granted for

	// KeyRotation describes each node where a key rotation has not ended.
	KeyRotation []string `json:"key_rotation,omitempty"`

	// SocketsUnwatched is why the kernel does not report dying sockets. A dead SIP server
	// is then noticed only by the next probe.
	SocketsUnwatched string `json:"sockets_unwatched,omitempty"`

	// Takeovers are the newest takeovers of all nodes, as far as the answering node knows
	// them, oldest first. They are as in events --json, but without the actions' output.
	Takeovers []Event `json:"takeovers,omitempty"`
}

// NodeStatus is one node as the answering node sees it.
type NodeStatus struct {
	Name    string   `json:"name"`
	Address string   `json:"address"`
	Alive   bool     `json:"alive"`
	Fit     bool     `json:"fit"`
	SIP     string   `json:"sip"` // up, down or unknown
	Drained bool     `json:"drained"`
	Holds   []string `json:"holds"` // names of VIPs, then of roles; never null

	Why           string `json:"why,omitempty"`            // why the node is not fit
	Witness       bool   `json:"witness,omitempty"`        // votes, holds no VIP, is never fit
	HeldDown      bool   `json:"held_down,omitempty"`      // came back recently, ranks last (§4.7)
	ConfigDiffers bool   `json:"config_differs,omitempty"` // runs another configuration
	ByRelay       bool   `json:"by_relay,omitempty"`       // heard only through the gateway: the direct path is cut
	Relay         string `json:"relay,omitempty"`          // "known" or "unknown": whether the gateway relays between the node and the answering one (§4.6)
	Answered      Millis `json:"answered_ms,omitempty"`    // how long ago the node answered the answering one over UDP, which shows that the agents' port is open both ways

	Keys       []string `json:"keys,omitempty"`        // names of its keys as it last reported them; the first one seals
	UnknownKey bool     `json:"unknown_key,omitempty"` // the answering node has no key that opens its packets

	FrozenFor Millis         `json:"frozen_for_ms,omitempty"` // for how much longer no SIP verdict takes a VIP from it
	Views     []View         `json:"views,omitempty"`         // each node's view of its PBX, its own included
	Targets   []TargetStatus `json:"targets,omitempty"`       // its SIP listeners, as probed by the answering node
	Checks    []CheckStatus  `json:"checks,omitempty"`        // only for the answering node itself
}

// View is one node's verdict on another's PBX. It is one of: up, suspect (its last probe
// was not answered), rising (it answers again, but not often enough yet), silent, unready
// (its own checks say no), refused.
type View struct {
	From string `json:"from"`
	SIP  string `json:"sip"`
}

// TargetStatus is one SIP listener as this node's own probes see it. The round trips
// cover the last 128 answers.
type TargetStatus struct {
	Name    string `json:"name"`
	URI     string `json:"uri"`   // udp:5060
	State   string `json:"state"` // up, silent, refused, unhealthy or unknown
	Code    int    `json:"code,omitempty"`
	Phrase  string `json:"phrase,omitempty"`
	Misses  int    `json:"misses,omitempty"` // probes in a row without a good answer
	Error   string `json:"error,omitempty"`  // why the last probe had no good answer
	Answers uint64 `json:"answers"`
	Median  Millis `json:"rtt_median_ms"`
	P90     Millis `json:"rtt_p90_ms"`
	P99     Millis `json:"rtt_p99_ms"`
	Max     Millis `json:"rtt_max_ms"`
	Timeout Millis `json:"timeout_ms"`

	CertificateEnds    *Since `json:"certificate_ends,omitempty"` // TLS only
	CertificateProblem string `json:"certificate_problem,omitempty"`
}

// CheckStatus is one of a node's checks of itself.
type CheckStatus struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, warn, unfit, paused or unknown
	Text  string `json:"text,omitempty"`
	Unfit bool   `json:"unfit,omitempty"` // this check makes the node unfit
}

// VIPStatus is one VIP as the answering node sees it. A vacant VIP has no holder and the
// last known epoch.
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

	AwayFrom  string         `json:"away_from,omitempty"` // the first node in prefer, if another node holds the VIP
	Unchecked bool           `json:"unchecked,omitempty"` // verification is off or still goes on: Verified means nothing yet
	Targets   []TargetStatus `json:"targets,omitempty"`   // the listeners on the VIP, if the answering node holds it
	Proof     Millis         `json:"proof_ms,omitempty"`  // from bound to proven in this takeover, if the answering node holds the VIP and the router reaches it
}

// RoleStatus is one role: a lease without an address (§4.8).
type RoleStatus struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"`
	Since  Since  `json:"since"`
	State  string `json:"state"`
	Reason string `json:"reason"`

	AwayFrom string `json:"away_from,omitempty"` // the first node in prefer, if another node holds the role
}

// LockStatus is one lock in use (§4.10).
type LockStatus struct {
	Name   string `json:"name"`
	Holder string `json:"holder"` // empty: nobody holds it now
	Epoch  uint64 `json:"epoch"`
	Since  Since  `json:"since"`

	Waiting       int    `json:"waiting,omitempty"`     // waiting clients on the answering node
	KeptFor       string `json:"kept_for,omitempty"`    // the only node that may hold it for now, as far as the answering voter knows
	KeptForMillis Millis `json:"kept_for_ms,omitempty"` // for how much longer, if that node says nothing more
}

// normal returns the status with empty lists instead of absent ones, so that scripts may
// iterate over them.
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

// self returns the answering node's own entry.
func (s Status) self() (NodeStatus, bool) {
	for _, n := range s.Nodes {
		if n.Name == s.Node {
			return n, true
		}
	}
	return NodeStatus{}, false
}

// Holds reports whether the answering node holds the VIP or role with that name. A role
// that it is handing over no longer counts. known is false if the name is not configured.
func (s Status) Holds(name string) (holds, known bool) {
	for _, v := range s.VIPs {
		if v.Name == name {
			return v.Holder == s.Node, true
		}
	}
	for _, r := range s.Roles {
		if r.Name == name {
			return r.Holder == s.Node && r.State != "moving", true // while it moves, its release actions end its job
		}
	}
	return false, false
}

// Spare reports whether the answering node is fit and holds no VIP. Roles do not count,
// because jobs for the spare are roles themselves.
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
