package elect

// phase is what this node does with a VIP.
type phase uint8

const (
	idle      phase = iota
	prevoting       // asks whether a majority would grant
	asking          // asks for grants
	holding
	unbinding // no longer holds it; releases once the kernel says that the address is gone
)

// vip is everything this node knows of one VIP or role.
type vip struct {
	VIPConfig
	index int

	// As a voter (§4.3).
	grant   *Grant
	barred  Epoch
	highest Epoch // the highest ever seen

	// As candidate or holder (§4.4).
	phase    phase
	epoch    Epoch // the epoch that is asked for
	first    Epoch // the first epoch of this acquisition: a holder may raise epoch in place
	held     Epoch // the highest that a majority granted: the holder's fencing token
	givenUp  Epoch
	asked    Epoch   // the highest ever asked for or held, over restarts too
	wanted   bool    // the kernel was last told to bind it
	until    Instant // end of our lease
	votes    []vote  // by peer index
	round    Instant // when the present round of asking began
	lastSend Instant
	rounds   []bool // by peer index: it has answered in this round
	since    Instant
	cause    Cause
	why      Why
	previous Node
	checked  bool
	verified bool
	ever     bool
	failed   *Verified // the last Verified, if it speaks against this node
	unjudged bool      // failed came while this node was frozen
	router   RouterState
	excluded Instant // this node failed to verify or bind it, and ranks last until then
	retire   Epoch   // let go under this epoch; the retire actions are still due

	survival survival
	// What the router of the VIP's link does.
	gateway GatewayState
	reached []Instant // by peer index: since when the peer has said that the router answers it; 0: it does not

	backoffUntil Instant
	retryAt      Instant // when a voter that refused may be asked again; 0: nobody said
	move         *move
	moveAfter    Instant  // no move is tried before then: no successor was ready
	ready        *ready   // as the successor
	release      *Release // sent when the kernel says the address is gone
	closing      *Release // of a role whose release actions run; the role is let go after them

	lock lock // only of a lock

	// Who claims it, as seen from here.
	claim     claim
	freeSince Instant
	added     Instant // when it came into the configuration
	leased    Instant // until then it is leased, as another voter said
	seenHeld  bool    // somebody has held it since the cluster started: no cold start any more
	told      bool    // VIPVacant has been told
	lastCause Cause
	lastHeld  Node
	noticed   Instant
	passing   Node // a release named this successor, which has not claimed yet
}

// vote is what one voter has answered; sent is the send time of the newest ask that it
// granted.
type vote struct {
	granted bool
	sent    Instant
	epoch   Epoch   // the highest it has granted
	yes     bool    // it said yes to the prevote
	refused Refusal // its last answer; Granted if it granted. A new round keeps it
}

// claim is another node's word that it holds the VIP.
type claim struct {
	by    *peer
	hold  Hold
	heard Instant
	since Instant
}

func newVIP(c VIPConfig, index, nodes int, now Instant) *vip {
	return &vip{VIPConfig: c, index: index, votes: make([]vote, nodes), rounds: make([]bool, nodes), reached: make([]Instant, nodes), freeSince: now, added: now}
}

func (v *vip) saw(e Epoch) { v.highest = max(v.highest, e) }

// top is the highest epoch this node knows for the VIP.
func (v *vip) top() Epoch {
	e := max(v.highest, v.barred, v.givenUp)
	if v.grant != nil {
		e = max(e, v.grant.Epoch)
	}
	return e
}

// holder is the node that holds the VIP as seen from here, nil for nobody.
func (m *Machine) holder(v *vip) *peer {
	if v.phase == holding {
		return m.self
	}
	return v.claim.by
}

// survives reports whether this node holds the VIP without a majority: v.epoch is then
// only asked for.
func (v *vip) survives() bool { return v.phase == holding && v.survival.epoch != 0 }

// serves reports whether this node holds the VIP and is not handing it over. A role whose
// release actions run still has its lease, but its job is ending.
func (v *vip) serves() bool { return v.phase == holding && v.closing == nil }

// moving reports whether a planned move away is under way. For a role it is true only
// once nothing can stop the move.
func (v *vip) moving() bool { return v.closing != nil || v.move != nil && !v.Role }

func (v *vip) newRound(now Instant) {
	v.round = now
	clear(v.rounds)
}

func (v *vip) voidVotes() { clear(v.votes) }
