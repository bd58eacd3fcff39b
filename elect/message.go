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
	HeldDown bool          // came back less than hold_down ago (§4.7)
	Frozen   time.Duration // for how long still no SIP verdict takes anything from it; 0: not
	Observes []Observation // what it sees of the others' PBXes, where that is not Rest
	Rest     SIPState      // what it sees of every other node of its file
	Excluded []VIPID       // VIPs it failed to verify lately (§5.5), or whose router only others reach (§4.7)
	Reaches  []VIPID       // VIPs whose router answers it, held or not
	AllReach bool          // that is every VIP of its file, and Reaches is empty
	Relayed  bool          // it hears the receiver through the gateway (§4.6)
	Holds    []Hold        // each also an ask to renew
}

// Observation is the sender's verdict about another node's PBX.
type Observation struct {
	Node Node
	SIP  SIPState
}

// Hold is a VIP its sender holds, and its ask for the next lease.
type Hold struct {
	VIP      VIPID
	Epoch    Epoch
	Survivor Epoch         // held under this epoch without a majority, Epoch is only asked for; 0: by lease
	Age      time.Duration // held for
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
	Holding bool // the sender holds it under this epoch
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
	Wait    time.Duration // RefusedHeld, RefusedQuiet: for how long still
	Highest Epoch         // the highest epoch the voter knows for the VIP
}

// Refusal is why a voter does not grant (§4.3).
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
	Pending bool  // its prepare actions still run: wait
	Nonce   Nonce // names this ready; 0 with Refused
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
	Lists             Lists         // the successor's: a vote must not cross to it that could not answer its ask
	Voted             bool          // the holder's own vote was its own and is now the successor's
	Cause             Cause
	Ago               time.Duration // since the holder noticed the need
}

// Released acknowledges a release to the old holder.
type Released struct {
	VIP   VIPID
	Epoch Epoch
}

// Passed is a voter's word to the successor that its grant is now the
// successor's; it carries the whole release, so one packet is enough (§4.4).
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

// Reply answers a Request that was refused or failed; success shows in
// heartbeats.
type Reply struct {
	ID    uint64
	Error string
}

// Report answers a Request to flush: what came of each action. What does not fit into
// one packet comes in several.
type Report struct {
	ID      uint64
	First   uint64 // place of Results[0] in the whole
	Total   uint64 // of all results
	Results []ActionResult
}

// ActionResult is what became of one flush action.
type ActionResult struct {
	Action string
	OK     bool
	Took   time.Duration
	Text   string // why it failed, or what is to be looked at; one line
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
