package elect

import "time"

// Message is one packet's body between two agents (§4.2). Sender, instance
// and sequence number travel in the header that package member writes.
type Message interface{ message() }

// Heartbeat goes to every peer once per heartbeat interval.
type Heartbeat struct {
	Config   uint64        // digest of the sender's configuration; a difference is shown, it moves nothing
	Lists    Lists         // the sender's voter lists
	Lease    time.Duration // the sender's T; asks below are for that long
	SIP      SIPState      // the sender's verdict about its own PBX
	Drained  bool
	HeldDown bool          // it came back less than hold_down ago, or is still sick (§4.7)
	Frozen   time.Duration // how long its freeze still lasts: no SIP verdict takes a VIP from it; 0: not frozen
	Observes []Observation // its verdicts about the others' PBXes, where they are not Rest
	Rest     SIPState      // its verdict about the PBX of every other node of its file
	Excluded []VIPID       // VIPs that it failed to verify (§5.5) or bind lately, or whose router only others reach (§4.7)
	Reaches  []VIPID       // VIPs whose router answers it, held or not
	AllReach bool          // the router of every VIP of its file answers it; Reaches is then empty
	Relayed  bool          // it hears the receiver through the gateway (§4.6)
	Holds    []Hold        // the VIPs it holds; each entry is also an ask to renew
}

// Observation is the sender's verdict about another node's PBX.
type Observation struct {
	Node Node
	SIP  SIPState
}

// Hold is a VIP that the sender holds, and its ask for the next lease.
type Hold struct {
	VIP      VIPID
	Epoch    Epoch
	Survivor Epoch         // the epoch under which it is held without a majority; Epoch is then only asked for; 0: held by lease
	Age      time.Duration // for how long it has been held
	Cause    Cause
	Why      Why
	Checked  bool // verification has ended, Verified says how
	Verified bool // the VIP answered SIP at this holder
	Ever     bool // the VIP was verified here since the configuration was loaded (§5.5)
	Moving   bool // a planned move away is under way; a role: its release actions run
	Router   RouterState
}

// Ask is the one question of the protocol, whether it acquires or renews.
type Ask struct {
	Prevote bool // would you grant? Nothing changes (§4.3)
	Lists   Lists
	Lease   time.Duration // the sender's T
	Items   []AskItem
}

// AskItem asks for one VIP.
type AskItem struct {
	VIP     VIPID
	Epoch   Epoch
	Holding bool // the sender holds the VIP under this epoch
}

// Answer answers every item of an ask in one packet.
type Answer struct {
	Re      Seq // of the ask
	Prevote bool
	Items   []AnswerItem
}

// AnswerItem is a grant, or a refusal with its reason.
type AnswerItem struct {
	VIP     VIPID
	Epoch   Epoch // as asked
	Refusal Refusal
	Wait    time.Duration // RefusedHeld, RefusedQuiet: for how long still, as far as known
	Highest Epoch         // the highest epoch the voter knows for the VIP
}

// Refusal is a voter's reason not to grant (§4.3).
type Refusal uint8

// The refusals, in the order the voter checks them.
const (
	Granted Refusal = iota
	RefusedQuiet
	RefusedHeld
	RefusedStale
	RefusedNoConfidence
	RefusedList
	refusalEnd
)

func (r Refusal) String() string {
	return [...]string{"granted", "quiet", "held", "stale", "no confidence", "list"}[min(r, refusalEnd-1)]
}

// Prepare asks the successor of a planned move to get ready (§4.4).
type Prepare struct {
	VIP   VIPID
	Epoch Epoch         // the holder's
	Cause Cause         // why it moves
	Ago   time.Duration // since the holder noticed the need
}

// Ready is the successor's answer to Prepare.
type Ready struct {
	VIP     VIPID
	Epoch   Epoch // as in Prepare
	Pending bool  // its prepare actions or its fresh OPTIONS are still under way: wait
	Nonce   Nonce // names this ready; 0 with Pending and Refused
	Lease   time.Duration
	Lists   Lists  // the successor's
	Refused string // why it will not, in words; empty otherwise
}

// Release gives a lease back, with a successor or without (§4.3).
type Release struct {
	VIP               VIPID
	Holder            Node
	Instance          Instance // of the holder
	Epoch             Epoch
	Successor         Node // empty: the lease is free
	SuccessorInstance Instance
	Nonce             Nonce
	Lease             time.Duration // the successor's T
	Lists             Lists         // the successor's: a voter passes its vote on only if it could grant the successor's ask
	Voted             bool          // the holder's own voter had granted to the holder, and its vote is now the successor's
	Cause             Cause
	Ago               time.Duration // since the holder noticed the need
}

// Released acknowledges a release to the old holder.
type Released struct {
	VIP   VIPID
	Epoch Epoch
}

// Passed is a voter's word to the successor that the voter's grant is now the
// successor's. It carries the whole release, so one packet is enough (§4.4).
type Passed struct {
	Release Release
}

// Request asks another node to carry out an operator's command.
type Request struct {
	ID   uint64
	Kind CommandKind
	VIP  VIPID
	To   Node
	For  time.Duration // CommandFreeze
}

// Reply answers a Request that was refused or failed. Success shows in heartbeats.
type Reply struct {
	ID    uint64
	Error string
}

// Report answers a Request to flush: the result of each action. Results that do not fit
// into one packet come in several.
type Report struct {
	ID      uint64
	First   uint64 // index of Results[0] among all results
	Total   uint64 // number of all results
	Results []ActionResult
}

// ActionResult is the result of one flush action.
type ActionResult struct {
	Action string
	OK     bool
	Took   time.Duration
	Text   string // why it failed, or what needs a look; one line
}

func (Heartbeat) message() {}
func (Ask) message()       {}
func (Answer) message()    {}
func (Prepare) message()   {}
func (Ready) message()     {}
func (Release) message()   {}
func (Released) message()  {}
func (Passed) message()    {}
func (Request) message()   {}
func (Reply) message()     {}
func (Report) message()    {}
