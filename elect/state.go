package elect

import "time"

// Runtime is what must outlive the agent but not the boot. It lives in the runtime
// directory, a tmpfs (§4.5).
type Runtime struct {
	Instance Instance             `json:"instance"`
	SeqBound Seq                  `json:"seq_bound"` // no packet was sent with this number or a higher one
	VIPs     map[VIPID]RuntimeVIP `json:"vips"`
	// QuietUntil is the end of the quiet time, or 0 if that is over. Until then this
	// record holds only a part of what the voter granted.
	QuietUntil Instant `json:"quiet_until,omitempty"`
	// FrozenUntil is the end of a freeze, which outlives the agent.
	FrozenUntil Instant `json:"frozen_until,omitempty"`
}

// RuntimeVIP is a voter's and a holder's memory of one VIP.
type RuntimeVIP struct {
	Grant   *Grant `json:"grant,omitempty"`
	Barred  Epoch  `json:"barred,omitempty"`
	GivenUp Epoch  `json:"given_up,omitempty"` // the highest epoch this node gave up; neither it nor a lower one is ever held again
	Asked   Epoch  `json:"asked,omitempty"`    // the highest epoch this node asked for or held
}

// Grant is one voter's part of a lease.
type Grant struct {
	Holder   Node          `json:"holder"`
	Instance Instance      `json:"instance"`
	Epoch    Epoch         `json:"epoch"`
	Lease    time.Duration `json:"lease"`
	until    Instant       // stored beside the record: see GrantEnd
}

// GrantEnd is the end of a voter's grant. A renewal changes nothing else, so of a renewal
// only this has to outlive the agent. A restarted voter that does not find a grant's end
// honours the grant for one full lease from its restart.
type GrantEnd struct {
	VIP   VIPID
	Epoch Epoch
	Until Instant
}

// Durable is what must outlive the boot. It lives in the state directory.
type Durable struct {
	Version      uint64          `json:"version"` // of this record, counted from the agent's start; Stored refers to it
	Active       VoterList       `json:"active_list"`
	LongestLease time.Duration   `json:"longest_lease"` // the longest ever seen in this cluster, for the quiet time (§4.5)
	Highest      map[VIPID]Epoch `json:"highest_epochs"`
	Drained      bool            `json:"drained"`
	// Kept are the locks that this voter keeps, each for one node (§4.10).
	Kept map[VIPID]KeptLock `json:"kept_locks,omitempty"`
}

// Restored is what New starts from.
type Restored struct {
	Runtime *Runtime // nil: none found, a new boot or a lost directory
	Durable *Durable // nil: none found, a first start
	// Held are the VIPs found bound (roles: recorded) whose lease has not ended. The
	// lease's end comes from a memory-mapped file. This node goes on asking for them
	// under the same epoch.
	Held []HeldVIP
	// Granted are the ends of the grants in Runtime, where they are known.
	Granted []GrantEnd
}

// HeldVIP is a lease that outlived its agent.
type HeldVIP struct {
	VIP   VIPID
	Epoch Epoch
	Until Instant
	Since Instant
}
