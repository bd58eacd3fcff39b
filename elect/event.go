package elect

import "time"

// Event is what happened. Step takes one at a time.
type Event interface{ event() }

// Received is a fresh message: package member has checked sender, instance and
// sequence number (§4.2).
type Received struct {
	From     Node
	Instance Instance
	Seq      Seq
	Msg      Message
	Relayed  bool // it came through the gateway (§4.6); Msg is nil where a newer one overtook it
}

// Health is this node's own verdict about a node's PBX, itself included. One that
// speaks against another node's is told with every probe that confirms it.
type Health struct {
	Node  Node
	SIP   SIPState
	Since Instant // when the first of the probes that it rests on began; 0: now
	Last  Instant // when the last of them began; 0: now
}

// Bound is what the kernel says of a VIP this node wanted bound or unbound. A
// release leaves only after Bound{On: false} (§4.4). The agent reports a role
// at once.
type Bound struct {
	VIP VIPID
	On  bool
	Err string // one line; the kernel refused, On is what is true all the same
}

// Prepared ends a PrepareVIP effect.
type Prepared struct {
	VIP    VIPID
	Epoch  Epoch
	Failed string // why the node is not ready, in words; empty when it is
}

// ReleaseDone says that the release actions of a role have ended: see ReleaseDue.
type ReleaseDone struct {
	VIP   VIPID
	Epoch Epoch
}

// Verified ends this node's takeover of a VIP: the acquire actions are done,
// and OK says whether the VIP answered SIP after them (§5.5). With GiveBack it
// was not asked: an action failed that gives the VIP back.
type Verified struct {
	VIP      VIPID
	Epoch    Epoch
	OK       bool
	Skipped  bool // nothing asked: verify = false, or a role
	GiveBack bool // an action with on_failure = "release" failed
	Standing bool // its targets go on being asked: so it is until another word comes
}

// Stored says that Durable with this version, or a newer one, is on disk.
type Stored struct{ Version uint64 }

// Unstored says that the Runtime of the last Effects could not be written. It
// has no effects itself; the record comes again with the next step, which is
// due soon.
type Unstored struct{}

// Tick is the passing of time: due by Deadline.
type Tick struct{}

// CommandKind is what an operator may ask.
type CommandKind uint8

// The commands. Stop hands every VIP over, then the agent may end.
const (
	CommandMove CommandKind = iota + 1
	CommandFailback
	CommandDrain
	CommandUndrain
	CommandStop
	CommandAdopt // the operator's word that no other voter list is in use: take the file's now (§4.9)
	CommandFreeze
	CommandThaw
	CommandFlush // every node runs its flush actions
)

func (k CommandKind) String() string {
	return [...]string{"", "move", "failback", "drain", "undrain", "stop", "adopt", "freeze", "thaw", "flush"}[min(k, CommandFlush)]
}

// Evidence is the gateway's answer to AskGateway or AskRouter, or the word that
// an AskOwner has left: one that was held back proves nothing.
type Evidence struct {
	VIP  VIPID
	Kind QuestionKind
	Sent Instant // when the question left
}

// Sign is what ARP or ND showed of another host and a VIP: an answer that names it, an
// announcement of it, or, where Asks is set, another node's question for it.
type Sign struct {
	VIP  VIPID
	Node Node // empty: none of ours, as far as known
	Asks bool
}

// Command is an operator's request to this agent; exactly one CommandAnswer
// with its ID follows. IDs are unique within an instance.
type Command struct {
	ID   uint64
	Kind CommandKind
	VIP  VIPID         // Move; Failback: empty is all
	Node Node          // Move: where to; Drain, Undrain, Freeze, Thaw: whom
	For  time.Duration // Freeze
}

// CommandAnswer ends a command.
type CommandAnswer struct {
	ID      uint64
	Error   string       // one line; empty when done
	Reports []NodeReport // of a flush, every node in configured order
}

// NodeReport is what a node's flush actions did.
type NodeReport struct {
	Node    Node
	Failed  string // why nothing is known of it; empty otherwise
	Results []ActionResult

	done    bool
	came    []bool // by part
	missing int    // parts
}

// Flushed ends a FlushDue effect: ID and From are its.
type Flushed struct {
	ID      uint64
	From    Node
	Results []ActionResult
}

func (Received) event()    {}
func (Health) event()      {}
func (Bound) event()       {}
func (ReleaseDone) event() {}
func (Prepared) event()    {}
func (Verified) event()    {}
func (Stored) event()      {}
func (Unstored) event()    {}
func (Tick) event()        {}
func (Command) event()     {}
func (Flushed) event()     {}
func (Evidence) event()    {}
func (Sign) event()        {}

// Effects is what has to happen now. Its slices are the machine's own and
// valid until the next Step.
//
// Order: Runtime is in the runtime directory before anything else of the same
// Effects happens; if it cannot be written, drop Send and carry out only those
// Want entries that do not hold, and the machine takes the rest for lost
// packets. It has to be told by Unstored before any other event: what the
// record holds is not in it a second time otherwise (§4.5). Want is carried
// out, the fence's deadlines included, before anything is sent.
type Effects struct {
	Runtime     *Runtime
	Granted     []GrantEnd // for the runtime directory as well, and before anything is sent
	Durable     *Durable   // write in the background, answer with Stored
	Want        []Desired
	Locks       []HeldLock // as Want, of the locks in use
	Send        []Outgoing
	Prepare     []PrepareVIP
	Flush       []FlushDue
	Probe       []Node // probe these PBXes now, without waiting for the interval
	Questions   []Question
	Transitions []Transition
	Answers     []CommandAnswer
	Stopped     bool // CommandStop: nothing is held any more
}

// Desired is the level the kernel should be brought to, for every configured
// VIP and role, every time; one that is not there is not to be held.
type Desired struct {
	VIP   VIPID
	Hold  bool
	Epoch Epoch
	Until Instant // end of the lease; the fence's deadline
	// Survivor: held on evidence, not on a lease. It is announced only where a
	// Question says so, and never defended.
	Survivor bool
}

// Outgoing is one packet.
type Outgoing struct {
	To    Node
	Seq   Seq
	Msg   Message
	Relay bool // through the gateway, not directly (§4.6)
}

// Question is one frame to the network, asked for evidence (§4.6). No answer
// is no event.
type Question struct {
	Kind     QuestionKind
	VIP      VIPID
	Announce bool // AskRouter: tell the neighbours first that the VIP is here
}

// QuestionKind is whom a survivor asks.
type QuestionKind uint8

// The questions.
const (
	AskGateway QuestionKind = iota + 1 // ping the gateway of the VIP's interface from this node's address
	AskRouter                          // ping it from the VIP: its answer finds us only if its table points here
	AskOwner                           // ask by ARP or ND who has the VIP, from this node's address
)

// PrepareVIP asks the agent to run the VIP's prepare actions and then a fresh
// OPTIONS to this node's own PBX; Prepared answers it.
type PrepareVIP struct {
	VIP      VIPID
	Epoch    Epoch // the holder's; the acquisition will be above it
	Previous Node
	Cause    Cause
	Again    bool // the actions have run: only the OPTIONS is asked for anew
}

// FlushDue asks the agent to run this node's flush actions; Flushed answers it.
type FlushDue struct {
	ID   uint64
	From Node // who asked
}

// TransitionKind is what changed.
type TransitionKind uint8

// The transitions the journal keeps.
const (
	Acquired    TransitionKind = iota + 1 // this node holds VIP under Epoch
	Raised                                // this node's epoch was raised in place: no takeover
	LetGo                                 // this node no longer holds VIP; Successor says to whom
	Lapsed                                // this node's lease ended
	MoveStarted                           // this node asks Successor to get ready
	MoveFailed                            // no ready in time, or refused; Text says which
	NodeUp                                // Node is heard again
	NodeDown                              // Node fell silent
	NodeFit                               // Node is fit, as seen from here
	NodeUnfit                             // Node is not; Text says why
	AllUnfit                              // no node is fit: nobody moves (§4.7)
	AllUnfitOver
	QuorumLost // fewer than a majority of voters are heard
	QuorumBack
	HolderSeen    // Node claims VIP under Epoch
	VIPVacant     // nobody holds VIP, as seen from here
	RetireDue     // the successor's takeover of VIP, which this node held under Epoch, is complete
	Drained       // this node
	Undrained     // this node
	ListTaken     // the active voter list changed; Text is the list
	ConfigDiffers // Node runs another configuration
	ConfigSame    // Node runs ours again
	VerifyFailed  // the VIP did not answer SIP here; Text says what follows
	BindFailed    // Text is the kernel's word
	Frozen        // this node's SIP verdicts; Text says for how long
	Thawed
	ActionFailed // an acquire action failed that gives the VIP back; Text says what follows
	Survives     // the lease of VIP ends without a majority, and this node holds on (§4.6)
	LeasedAgain  // a survivor's hold became a lease, under Epoch
	ReleaseDue   // this node hands a role over, to Successor: its release actions come first, ReleaseDone answers
	transitionKindEnd
)

func (k TransitionKind) String() string {
	return [...]string{"", "acquired", "raised", "let go", "lapsed", "move started", "move failed", "node up", "node down",
		"node fit", "node unfit", "all unfit", "all unfit over", "quorum lost", "quorum back", "holder seen", "vacant", "retire due",
		"drained", "undrained", "list taken", "config differs", "config same", "verify failed", "bind failed", "frozen", "thawed",
		"action failed", "survives", "leased again", "release due"}[min(k, transitionKindEnd-1)]
}

// Transition is a fact for the log and the journal, told once.
type Transition struct {
	Kind      TransitionKind
	VIP       VIPID
	Node      Node
	Epoch     Epoch
	Previous  Node // Acquired: the holder before
	Successor Node // LetGo, MoveStarted, MoveFailed
	Cause     Cause
	Why       Why
	// Noticed is when the need for the takeover showed on this node's clock:
	// for a crash the last sign of life of the old holder, for a move the
	// moment the old holder noticed, as far as its word reached us.
	Noticed Instant
	// Vacant is when the VIP was seen to be free to take: the end of the old
	// holder's lease, or the successor's ready.
	Vacant Instant
	Lease  time.Duration // Acquired, HolderSeen: for how long the holder is granted one; 0: it has not said
	Text   string
}

// Config is what the machine needs of the configuration. Nodes and VIPs are in
// configured order.
type Config struct {
	Self           Node
	Nodes          []NodeConfig
	VIPs           []VIPConfig // roles included
	Heartbeat      time.Duration
	Lease          time.Duration
	HoldDown       time.Duration
	Settle         time.Duration
	Stagger        time.Duration
	Exclude        time.Duration
	FailbackAfter  time.Duration
	FailbackAuto   bool
	FlushTimeout   time.Duration // the longest a node's flush actions may take
	PrepareTimeout time.Duration // the longest a node's prepare actions and its fresh OPTIONS may take
	Survivor       SurvivorMode
	SurvivorAfter  time.Duration // without a majority; three or more voters
	CheckTimeout   time.Duration // the longest a node's own checks may take
	ReleaseTimeout time.Duration // the longest a role's release actions may take
	Digest         uint64
}

// NodeConfig is one node as configured.
type NodeConfig struct {
	Name     Node
	Voter    bool
	Holder   bool // false: a witness
	Capacity int
}

// VIPConfig is one VIP or role as configured.
type VIPConfig struct {
	ID          VIPID
	Name        string
	Role        bool
	Prefer      []Node
	PreferSpare bool
	Weight      int
	// Announced: the neighbours' tables follow our announcements, so that the
	// gateway's answers show who has it. Only such a VIP can have a survivor.
	Announced bool
	// Relayed: its gateway is the one that messages are relayed by, and so the
	// others' silence there says something about it.
	Relayed bool
	Lock    bool // made by the machine, never configured
}

// SurvivorMode says what happens without a majority (§4.6).
type SurvivorMode uint8

// The values of `survivor`. Without it there is no heartbeat through the
// gateway either.
const (
	SurvivorNever SurvivorMode = iota
	SurvivorAuto
	SurvivorAlways
)
