package elect

import "time"

// Runtime is what must outlive the agent but not the boot: it lives in the
// runtime directory, a tmpfs (§4.5).
type Runtime struct {
	Instance Instance             `json:"instance"`
	SeqBound Seq                  `json:"seq_bound"` // no packet was sent with this number or a higher one
	VIPs     map[VIPID]RuntimeVIP `json:"vips"`
	// QuietUntil is the end of the quiet time if it was not over yet: until then
	// this record knows only a part of what the voter granted.
	QuietUntil Instant `json:"quiet_until,omitempty"`
	// FrozenUntil is the end of a freeze: an operator's word outlives the agent.
	FrozenUntil Instant `json:"frozen_until,omitempty"`
}

// RuntimeVIP is a voter's and a holder's memory of one VIP.
type RuntimeVIP struct {
	Grant   *Grant `json:"grant,omitempty"`
	Barred  Epoch  `json:"barred,omitempty"`
	GivenUp Epoch  `json:"given_up,omitempty"` // the highest epoch this node gave up: never held again
	Asked   Epoch  `json:"asked,omitempty"`    // the highest epoch this node asked for or held
}

// Grant is one voter's part of a lease.
type Grant struct {
	Holder   Node          `json:"holder"`
	Instance Instance      `json:"instance"`
	Epoch    Epoch         `json:"epoch"`
	Lease    time.Duration `json:"lease"`
	until    Instant       // kept beside the record: see GrantEnd
}

// GrantEnd is until when a voter's grant binds it. Renewals change nothing else, so
// this is all of them that has to outlive the agent. A restarted voter that does
// not find it honours the grant for one full lease from then on.
type GrantEnd struct {
	VIP   VIPID
	Epoch Epoch
	Until Instant
}

// Durable is what must outlive the boot: it lives in the state directory.
type Durable struct {
	Version      uint64          `json:"version"` // of this record in this run; for Stored
	Active       VoterList       `json:"active_list"`
	LongestLease time.Duration   `json:"longest_lease"` // ever seen in this cluster: the quiet time (§4.5)
	Highest      map[VIPID]Epoch `json:"highest_epochs"`
	Drained      bool            `json:"drained"`
	// Kept are the locks that this voter keeps for one node each (§4.10).
	Kept map[VIPID]KeptLock `json:"kept_locks,omitempty"`
}

// Restored is what New starts from.
type Restored struct {
	Runtime *Runtime // nil: none found, a new boot or a lost directory
	Durable *Durable // nil: none found, a first start
	// Held are the VIPs found bound (roles: recorded) whose lease, kept in a
	// memory-mapped file, has not ended: they are asked for on, same epoch.
	Held []HeldVIP
	// Granted are the ends of the grants in Runtime, as far as they are known.
	Granted []GrantEnd
}

// HeldVIP is a lease that outlived its agent.
type HeldVIP struct {
	VIP   VIPID
	Epoch Epoch
	Until Instant
	Since Instant
}
