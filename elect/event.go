package elect

import "time"

// Event is something that happened. Step takes one event at a time.
type Event interface{ event() }

// Received is a fresh message: package member has checked its sender, instance and
// sequence number (§4.2).
type Received struct {
	From     Node
	Instance Instance
	Seq      Seq
	Msg      Message
	Relayed  bool // the packet came through the gateway (§4.6); Msg is nil if a newer packet overtook it
}

// Health is this node's verdict about one node's PBX, possibly its own. A verdict that
// doubts another node's PBX comes again with every probe that confirms it.
type Health struct {
	Node  Node
	SIP   SIPState
	Since Instant // when the first of the probes that the verdict rests on began; 0: now
	Last  Instant // when the last of those probes began; 0: now
}

// Bound is the kernel's state of a VIP that this node wanted bound or unbound. A release
// leaves only after Bound{On: false} (§4.4). A role has no address: the agent reports
// Bound for it at once.
type Bound struct {
	VIP VIPID
	On  bool
	Err string // one line, set if the kernel refused; On is the true state even then
}

// Prepared is the outcome of a PrepareVIP effect.
type Prepared struct {
	VIP    VIPID
	Epoch  Epoch
	Failed string // why the node is not ready, in words; empty when it is
}

// ReleaseDone says that a role's release actions have ended: see ReleaseDue.
type ReleaseDone struct {
	VIP   VIPID
	Epoch Epoch
}

// Verified says whether a VIP that this node holds answers SIP (§5.5). The first one ends
// the takeover: the acquire actions are done. With GiveBack the VIP was not asked,
// because an action failed that gives the VIP back.
type Verified struct {
	VIP      VIPID
	Epoch    Epoch
	OK       bool
	Skipped  bool // nothing was asked: verify = false, a role, or a reload took away the VIP's last target
	GiveBack bool // an action with on_failure = "release" failed
	Standing bool // the word of the VIP's own targets, which go on being probed: true until the next Verified
}

// Stored says that Durable with this version, or a newer one, is on disk.
type Stored struct{ Version uint64 }

// Unstored says that the Runtime of the last Effects could not be written. Its own
// Effects are empty. The next step, which is due soon, returns the record again.
type Unstored struct{}

// Tick says only that time has passed. It is due by Deadline.
type Tick struct{}

// CommandKind is a command that an operator can give.
type CommandKind uint8

// The commands. CommandStop hands every VIP over; then the agent may end.
const (
	CommandMove CommandKind = iota + 1
	CommandFailback
	CommandDrain
	CommandUndrain
	CommandStop
	CommandAdopt // the operator says that no other voter list is in use: take the file's list now (§4.9)
	CommandFreeze
	CommandThaw
	CommandFlush // every node runs its flush actions
)

func (k CommandKind) String() string {
	return [...]string{"", "move", "failback", "drain", "undrain", "stop", "adopt", "freeze", "thaw", "flush"}[min(k, CommandFlush)]
}

// Evidence says that the gateway answered an AskGateway or AskRouter, or that an AskOwner
// has left. A question that was held back proves nothing.
type Evidence struct {
	VIP  VIPID
	Kind QuestionKind
	Sent Instant // when the question left
}

// Sign is what ARP or ND showed about a VIP and another host: the host answered for the
// VIP or announced it. Where Asks is set, the host is a node that asked who has the VIP.
type Sign struct {
	VIP  VIPID
	Node Node // empty: not one of our nodes, as far as known
	Asks bool
}

// Command is an operator's request to this agent. Exactly one CommandAnswer with its ID
// follows. IDs are unique within an instance.
type Command struct {
	ID   uint64
	Kind CommandKind
	VIP  VIPID         // Move; Failback: empty means all
	Node Node          // Move: the new holder; Drain, Undrain, Freeze, Thaw: the node, empty for this one
	For  time.Duration // Freeze
}

// CommandAnswer ends a command.
type CommandAnswer struct {
	ID      uint64
	Error   string       // one line; empty when done
	Reports []NodeReport // of a flush: every node, in configured order
}

// NodeReport is what a node's flush actions did.
type NodeReport struct {
	Node    Node
	Failed  string // why its results are unknown; empty if they are known
	Results []ActionResult

	done    bool
	came    []bool // which parts have come, by part
	missing int    // how many parts have not come
}

// Flushed is the outcome of a FlushDue effect, with the ID and From of that effect.
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

// Effects is what has to happen now. Its slices belong to the machine and are valid until
// the next Step.
//
// Order: Runtime is written to the runtime directory before anything else of the same
// Effects happens. If it cannot be written, drop Send and carry out only those entries of
// Want that do not hold; the machine takes what was dropped for lost packets. Then give
// the machine Unstored before any other event: otherwise it does not return the unwritten
// record again (§4.5). Want is carried out, the fence's deadlines included, before
// anything is sent.
type Effects struct {
	Runtime     *Runtime
	Granted     []GrantEnd // also for the runtime directory, before anything is sent
	Durable     *Durable   // write it in the background; answer with Stored
	Want        []Desired
	Locks       []HeldLock // like Want, for the locks in use
	Send        []Outgoing
	Prepare     []PrepareVIP
	Flush       []FlushDue
	Probe       []Node // probe these PBXes now, without waiting for the interval
	Questions   []Question
	Transitions []Transition
	Answers     []CommandAnswer
	Stopped     bool // after CommandStop: nothing is held and no release is under way
}

// Desired is the state that the kernel should be brought to. Want has an entry for every
// configured VIP and role after every event but Unstored. A VIP without an entry is not
// to be held.
type Desired struct {
	VIP   VIPID
	Hold  bool
	Epoch Epoch
	Until Instant // end of the lease, or of a survivor's evidence; the fence's deadline
	// Survivor says that the VIP is held on evidence, not on a lease. It is announced
	// only where a Question says so, and never defended.
	Survivor bool
}

// Outgoing is one packet.
type Outgoing struct {
	To    Node
	Seq   Seq
	Msg   Message
	Relay bool // through the gateway, not directly (§4.6)
}

// Question is one frame to the network, sent to get evidence (§4.6). If no answer comes,
// there is no event.
type Question struct {
	Kind     QuestionKind
	VIP      VIPID
	Announce bool // AskRouter only: announce the VIP to the neighbours first
}

// QuestionKind says whom a survivor asks, and from which address.
type QuestionKind uint8

// The questions.
const (
	AskGateway QuestionKind = iota + 1 // ping the gateway of the VIP's interface from this node's address
	AskRouter                          // ping the gateway from the VIP: its answer reaches us only if its neighbour table points here
	AskOwner                           // ask by ARP or ND who has the VIP, from this node's address
)

// PrepareVIP asks the agent to run the VIP's prepare actions and then to send this node's
// own PBX a fresh OPTIONS. For CauseCheck the agent runs this node's checks once more,
// too. Prepared is the outcome.
type PrepareVIP struct {
	VIP      VIPID
	Epoch    Epoch // the holder's; the successor's epoch is above it
	Previous Node
	Cause    Cause
	Again    bool // the actions have run already; only what follows them is asked again
}

// FlushDue asks the agent to run this node's flush actions; Flushed answers it.
type FlushDue struct {
	ID   uint64
	From Node // the node that asked
}

// TransitionKind is what changed.
type TransitionKind uint8

// The transitions the journal keeps.
const (
	Acquired    TransitionKind = iota + 1 // this node holds VIP under Epoch
	Raised                                // this node's epoch was raised in place: no takeover
	LetGo                                 // this node no longer holds VIP; Successor is the next holder, if one is named
	Lapsed                                // this node's lease ended
	MoveStarted                           // this node asks Successor to get ready
	MoveFailed                            // no ready in time, or refused; Text says which
	NodeUp                                // Node is heard again
	NodeDown                              // Node fell silent
	NodeFit                               // Node is fit, as seen from here
	NodeUnfit                             // Node is not fit, as seen from here; Text says why
	AllUnfit                              // no node is fit: nobody moves (§4.7)
	AllUnfitOver
	QuorumLost // fewer than a majority of voters are heard
	QuorumBack
	HolderSeen    // Node claims VIP under Epoch
	VIPVacant     // nobody holds VIP, as seen from here
	RetireDue     // another node's takeover of VIP is complete; this node held VIP under Epoch before
	Drained       // this node
	Undrained     // this node
	ListTaken     // the active voter list changed; Text is the list
	ConfigDiffers // Node runs another configuration
	ConfigSame    // Node runs ours again
	VerifyFailed  // the VIP did not answer SIP here; Text says what follows
	BindFailed    // Text is the kernel's error
	Frozen        // this node's SIP verdicts are suspended; Text says for how long
	Thawed
	ActionFailed // an acquire action that gives the VIP back failed; Text says what follows
	Survives     // the lease of VIP ends without a majority, and this node holds on (§4.6)
	LeasedAgain  // a survivor's hold became a lease, under Epoch
	ReleaseDue   // this node hands a role to Successor; its release actions run first, and ReleaseDone ends them
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
	// Noticed is when the need for the takeover showed, on this node's clock. For a crash
	// that is the old holder's last sign of life. For a move it is the moment when the
	// old holder noticed the need, if its message reached us.
	Noticed Instant
	// Vacant is when the VIP became free to take, as seen from here: the end of the old
	// holder's lease, or the successor's ready.
	Vacant Instant
	Lease  time.Duration // Acquired, HolderSeen: the length of the new holder's lease; 0: it has not said
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
	SurvivorAfter  time.Duration // how long no other voter is heard before a VIP is taken alone; with two voters it is Stagger
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
	// Announced says that the neighbours' tables follow our announcements, so the
	// gateway's answers show who has the VIP. Only such a VIP can have a survivor.
	Announced bool
	// Relayed says that messages are relayed by this VIP's own gateway, so the others'
	// silence there says something about the VIP.
	Relayed bool
	Lock    bool // made by the machine, never configured
}

// SurvivorMode says what happens without a majority (§4.6).
type SurvivorMode uint8

// The values of `survivor`. With SurvivorNever no heartbeat goes through the gateway
// either.
const (
	SurvivorNever SurvivorMode = iota
	SurvivorAuto
	SurvivorAlways
)
