package elect

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Machine is one node's part in the election. It is not safe for concurrent
// use: one loop owns it.
type Machine struct {
	cfg      Config
	rng      *rand.Rand
	now      Instant
	deadline Instant

	instance   Instance
	seq        Seq
	seqBound   Seq
	quietUntil Instant // this voter lost its grants and waits (§4.5)
	started    Instant

	self       *peer
	peers      []*peer // every node in configured order, self included
	named      map[Node]*peer
	electorate []*peer // of them the voters of the active list
	vips       []*vip  // every VIP and role in configured order, then the locks in use
	known      map[VIPID]*vip
	// VIPs that have left the configuration (Reconfigure), until the kernel has
	// said that they are gone.
	leaving []*vip

	lists      lists
	health     selfHealth
	durable    Durable
	durableAt  Instant
	durableDue bool
	stored     Durable
	// The first version of the durable record that has its LongestLease, its Active list.
	leaseFrom, listFrom uint64
	strangers           map[VIPID]RuntimeVIP // of VIPs that this configuration lacks: kept for one that has them
	lockFloor           Epoch                // no epoch of a forgotten lock is above it
	kept                map[VIPID]*KeptLock  // by this voter
	unkeeps             []*unkeep

	nextBeat Instant
	beatNow  bool
	dirty    bool // Runtime has to be stored before anything leaves

	releases    []*pendingRelease
	commands    []*command
	requests    []*request
	stopping    bool
	adopting    bool // CommandAdopt, until the list is active
	stopBy      Instant
	frozenUntil Instant // an operator works on our PBX until then; 0: nobody
	stopID      uint64
	flushes     []*flushing

	seen         sight
	quorum       bool
	quorumSince  Instant // of quorum being what it is
	firstQuorum  Instant // since then a takeover has been possible; 0: not yet
	alone        bool    // no other voter is heard
	aloneSince   Instant
	ownerAsked   Instant // the newest AskOwner, for whichever VIP
	gatewayAsked Instant // the newest AskGateway
	unanswered   int     // of them all, ever
	tookAlone    Instant // when a VIP was last taken as a survivor
	allUnfit     bool
	allUnfitEnd  Instant // 0: never
	everFit      bool    // a node was, or had time to be: before that, no alarm

	eff     Effects
	askItem [2][][]AskItem // by prevote, by peer: items due in this step
	asks    bool           // there are some
}

// peer is a node as seen from here.
type peer struct {
	NodeConfig
	index     int
	instance  Instance
	beat      Heartbeat // its last; meaningful once heard
	heard     bool
	lastHeard Instant // of any of its messages, once a heartbeat has been heard
	beatAt    Instant // of its last heartbeat
	direct    Instant // the same, of those that came by themselves
	relayed   Instant // and of those that came through the gateway
	relay     bool    // the gateway relayed between us when the peer was last heard directly
	relaySent Instant
	// byRelay: heard through the gateway alone; directSince: directly, without a break since then.
	byRelay     bool
	directSince Instant
	seen        SIPState // our own verdict of its PBX
	seenSince   Instant  // when the first of the probes that it rests on began
	seenLast    Instant  // and the last

	alive, fit, differs bool
	toldFit             bool
	unfit               string
	fitSince            Instant
	asks                []sentAsk // ring of rememberedAsks, made with the first one
	asksNext            int
	views               []SIPState // by node: what it says of the others' PBXes; nil: nothing yet
	reread              bool       // with its next heartbeat, for the nodes are others
	opinions            opinions   // the others' of its PBX
}

// rememberedAsks are the newest asks to one node whose answers can be dated.
const rememberedAsks = 256

// sentAsk remembers when an ask left, so that its answer can be dated by it.
type sentAsk struct {
	seq  Seq
	sent Instant
}

// New starts a machine from what was found in the runtime and state
// directories. instance is used where restored holds none. The random source
// serves backoffs and nonces.
func New(cfg Config, restored Restored, instance Instance, now Instant, rng *rand.Rand) (*Machine, error) {
	m := &Machine{cfg: cfg, rng: rng, now: now, started: now, known: map[VIPID]*vip{}, strangers: map[VIPID]RuntimeVIP{}, kept: map[VIPID]*KeptLock{}, nextBeat: now}
	for i, n := range cfg.Nodes {
		m.peers = append(m.peers, &peer{NodeConfig: n, index: i})
	}
	m.namePeers()
	if m.self = m.peer(cfg.Self); m.self == nil {
		return nil, fmt.Errorf("node %q: not among the configured nodes", cfg.Self)
	}
	for i, c := range cfg.VIPs {
		v := newVIP(c, i, len(cfg.Nodes), now)
		m.vips = append(m.vips, v)
		m.known[c.ID] = v
	}
	m.askItem[0] = make([][]AskItem, len(m.peers))
	m.askItem[1] = make([][]AskItem, len(m.peers))
	m.restoreDurable(restored.Durable)
	m.seatVoters()
	m.restoreRuntime(restored, instance)
	m.self.instance = m.instance
	m.self.heard, m.self.alive = true, true
	m.health.init(m)
	return m, nil
}

// Step takes one event and returns what has to happen now. The order is fixed:
// what time has ended ends before the event can speak for it; then the event;
// then every rule that may act on the state as it now is.
func (m *Machine) Step(now Instant, ev Event) Effects {
	m.now = max(now, m.now)
	if _, lost := ev.(Unstored); lost {
		m.dirty = true
		m.due(m.now.Add(m.pace()))
		return Effects{}
	}
	m.begin()
	m.seen.calm = nil
	m.lapse()
	m.take(ev)
	m.observe()
	m.takeList()
	m.steerMoves()
	m.releaseUnbound()
	m.candidacies()
	m.survivals()
	m.renew()
	m.keepLocks()
	m.flushAsks()
	m.repeatReleases()
	m.runCommands()
	m.runFlushes()
	m.beat()
	return m.finish()
}

func (m *Machine) take(ev Event) {
	switch e := ev.(type) {
	case Received:
		m.receive(e)
	case Health:
		m.onHealth(e)
	case Bound:
		m.onBound(e)
	case ReleaseDone:
		m.onReleaseDone(e)
	case Prepared:
		m.onPrepared(e)
	case Verified:
		m.onVerified(e)
	case Router:
		m.onRouter(e)
	case Gateway:
		m.onGateway(e)
	case Flushed:
		m.onFlushed(e)
	case Share:
		m.onShare(e)
	case Tell:
		m.onTell(e)
	case Stored:
		m.onStored(e)
	case Command:
		m.onCommand(e)
	case Evidence:
		m.onEvidence(e)
	case Sign:
		m.onSign(e)
	case LockWanted:
		m.onLockWanted(e)
	case LockDone:
		m.onLockDone(e)
	case LockLeft:
		m.onLockLeft(e)
	case KeepOver:
		m.onKeepOver(e)
	case Reconfigure:
		m.reconfigure(e.Config)
	case Tick:
	}
}

func (m *Machine) receive(e Received) {
	p := m.peer(e.From)
	if p == nil || p == m.self {
		return
	}
	if p.instance != e.Instance {
		// A new boot: what the old one said of itself is void. Its grants
		// stay: they name the old instance (§4.3).
		m.forgetViews(p)
		p.instance, p.heard, p.beat = e.Instance, false, Heartbeat{}
	}
	if !m.noteRoute(p, e) {
		m.seen.calm = p
		return
	}
	p.lastHeard = m.now
	switch msg := e.Msg.(type) {
	case Heartbeat:
		m.onHeartbeat(p, e.Seq, msg)
	case Ask:
		m.onAsk(p, e.Seq, msg)
	case Answer:
		m.onAnswer(p, msg)
	case Prepare:
		m.onPrepare(p, msg)
	case Ready:
		m.onReady(p, msg)
	case Release:
		m.onRelease(p, msg)
	case Released:
		m.onReleased(p, msg)
	case Passed:
		m.onPassed(p, msg)
	case Request:
		m.onRequest(p, msg)
	case Reply:
		m.onReply(p, msg)
	case Report:
		m.reported(p, msg)
	case Keep:
		m.onKeep(p, msg)
	case Kept:
		m.onKept(p, msg)
	}
}

func (m *Machine) peer(n Node) *peer { return m.named[n] }

func (m *Machine) namePeers() {
	m.named = make(map[Node]*peer, len(m.peers))
	for _, p := range m.peers {
		m.named[p.Name] = p
	}
}

// seatVoters finds the voters of the active list among the nodes: only they are
// asked and counted, however many nodes there are.
func (m *Machine) seatVoters() {
	m.electorate = nil
	for _, p := range m.peers {
		if m.lists.Active.Has(p.Name) {
			m.electorate = append(m.electorate, p)
		}
	}
}

// Deadline is when Step(now, Tick{}) is due.
func (m *Machine) Deadline() Instant { return m.deadline }

// Instance is the instance this node sends under.
func (m *Machine) Instance() Instance { return m.instance }

// due asks for a step at t; what is past is acted on in this step already.
func (m *Machine) due(t Instant) {
	if t > m.now && t < m.deadline {
		m.deadline = t
	}
}

func (m *Machine) begin() {
	e := &m.eff
	m.eff = Effects{
		Granted: e.Granted[:0], Want: e.Want[:0], Locks: e.Locks[:0], Send: e.Send[:0], Prepare: e.Prepare[:0], Flush: e.Flush[:0], Probe: e.Probe[:0],
		Transitions: e.Transitions[:0], Answers: e.Answers[:0], Questions: e.Questions[:0],
	}
	m.deadline = m.now.Add(m.cfg.Heartbeat)
}

func (m *Machine) finish() Effects {
	m.forgetLeft()
	m.forgetLocks()
	held := 0
	for _, v := range m.everyVIP() {
		v.wanted = v.serves() || v.wanted && v.phase == unbinding
		d := Desired{VIP: v.ID, Hold: v.serves(), Epoch: v.held, Until: v.until, Survivor: v.survives()}
		if v.Lock {
			m.eff.Locks = append(m.eff.Locks, HeldLock{d, d.Hold && m.isKept(v)})
		} else {
			m.eff.Want = append(m.eff.Want, d)
		}
		if v.phase == holding {
			m.due(v.until)
			held += v.holdsAs()
		}
	}
	m.seen.stale = m.seen.stale || held != m.seen.held
	m.seen.held = held
	m.due(m.nextBeat)
	m.store()
	return m.eff
}

func (m *Machine) send(to *peer, msg Message) Seq { return m.sendBy(m.needsRelay(to), to, msg) }

func (m *Machine) sendBy(relay bool, to *peer, msg Message) Seq {
	m.seq++
	if m.seq >= m.seqBound {
		m.seqBound = m.seq + seqBlock
		m.dirty = true
	}
	m.eff.Send = append(m.eff.Send, Outgoing{To: to.Name, Seq: m.seq, Msg: msg, Relay: relay})
	return m.seq
}

func (m *Machine) tell(t Transition) { m.eff.Transitions = append(m.eff.Transitions, t) }

// pace is how soon a question on the wire is repeated (§4.4).
func (m *Machine) pace() time.Duration { return max(5*time.Millisecond, m.cfg.Heartbeat/10) }

// Margin is what a holder's lease is shorter than its voters' grants, beside
// the clocks' drift (§4.1).
func Margin(lease time.Duration) time.Duration { return max(10*time.Millisecond, lease/20) }

// Usable is how long a lease lasts at its holder, counted from the send time
// of the ask: two clocks drift at most 0.1 % apart (§1, §4.4).
func Usable(lease time.Duration) time.Duration { return lease - lease/1000 - Margin(lease) }

// backoff is one to two leases, at random, so that two candidates part.
func (m *Machine) backoff() time.Duration {
	return m.cfg.Lease + time.Duration(m.rng.Int64N(int64(m.cfg.Lease)))
}
