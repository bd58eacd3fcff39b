package elect

// phase is what this node is to a VIP.
type phase uint8

const (
	idle      phase = iota
	prevoting       // asks whether a majority would grant
	asking          // asks for grants
	holding
	unbinding // holds no more, and waits for the kernel's word before it releases
)

// vip is everything this node knows of one VIP or role.
type vip struct {
	VIPConfig
	index int

	// As a voter (§4.3).
	grant   *Grant
	barred  Epoch
	highest Epoch // ever seen

	// As candidate or holder (§4.4).
	phase    phase
	epoch    Epoch // asked for
	first    Epoch // of this acquisition: a holder may raise its epoch in place
	held     Epoch // the highest that a majority granted: the holder's fencing token
	givenUp  Epoch
	asked    Epoch   // the highest ever asked for or held, over restarts too
	wanted   bool    // the kernel was last told to bind it
	until    Instant // end of our lease
	votes    []vote  // by peer index
	round    Instant // when the present round of asking began
	lastSend Instant
	rounds   []bool // who has answered in this round
	since    Instant
	cause    Cause
	why      Why
	previous Node
	checked  bool
	verified bool
	ever     bool
	failed   *Verified // the last word, where it speaks against this node
	unjudged bool      // it came while this node was frozen
	router   RouterState
	excluded Instant // this node failed to verify it: ranks last until then
	retire   Epoch   // let go under this epoch, retire actions still due

	survival survival
	// The router of its link.
	gateway GatewayState
	reached []Instant // by peer index: since when it has said that the router answers it; 0: it does not

	backoffUntil Instant
	retryAt      Instant // a refusal said for how long still
	move         *move
	moveAfter    Instant  // no candidate was ready: not again before
	ready        *ready   // as the successor
	release      *Release // leaves when the kernel says the address is gone
	closing      *Release // of a role whose release actions run: then it is let go

	lock lock // where it is one

	// Who claims it, as seen from here.
	claim     claim
	freeSince Instant
	added     Instant // to the configuration
	leased    Instant // another voter said that it is leased until then, to whom we do not hear
	seenHeld  bool    // since the cluster started: no cold start any more
	told      bool    // that it is vacant
	lastCause Cause
	lastHeld  Node
	noticed   Instant
	passing   Node // a release named this successor, which has not claimed yet
}

// vote is one voter's newest granted ask, by its send time.
type vote struct {
	granted bool
	sent    Instant
	epoch   Epoch   // the highest it has granted
	yes     bool    // to the prevote
	refused Refusal // its last word in this round, if not granted
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

// holder is who holds the VIP as seen from here, nil for nobody.
func (m *Machine) holder(v *vip) *peer {
	if v.phase == holding {
		return m.self
	}
	return v.claim.by
}

// survives reports whether this node holds without a majority: v.epoch is then
// only asked for.
func (v *vip) survives() bool { return v.phase == holding && v.survival.epoch != 0 }

// serves: held and not being handed over. A role that is has its lease, but its job
// is ending.
func (v *vip) serves() bool { return v.phase == holding && v.closing == nil }

// moving: a planned move away is under way. Of a role only once nothing can stop it.
func (v *vip) moving() bool { return v.closing != nil || v.move != nil && !v.Role }

func (v *vip) newRound(now Instant) {
	v.round = now
	clear(v.rounds)
}

func (v *vip) voidVotes() { clear(v.votes) }
