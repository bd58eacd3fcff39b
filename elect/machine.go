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
	quietUntil Instant // this voter lost its grants and grants nothing until then (§4.5)
	started    Instant

	self       *peer
	peers      []*peer // every node in configured order, self included
	named      map[Node]*peer
	electorate []*peer // those of peers that are voters of the active list
	vips       []*vip  // every VIP and role in configured order, then the locks in use
	known      map[VIPID]*vip
	// The VIPs that have left the configuration (Reconfigure), until the kernel has said
	// that their addresses are gone.
	leaving []*vip

	lists      lists
	health     selfHealth
	durable    Durable
	durableAt  Instant
	durableDue bool
	stored     Durable
	// The first version of the durable record that has the present LongestLease, and the
	// first that has the present Active list.
	leaseFrom, listFrom uint64
	strangers           map[VIPID]RuntimeVIP // records of VIPs that this configuration lacks, in case it gets them
	lockFloor           Epoch                // no forgotten lock had a higher epoch
	kept                map[VIPID]*KeptLock  // the locks that this voter keeps
	unkeeps             []*unkeep

	nextBeat Instant
	beatNow  bool
	dirty    bool // Runtime has to be stored before anything leaves

	releases    []*pendingRelease
	commands    []*command
	requests    []*request
	stopping    bool
	adopting    bool // CommandAdopt was given, and the file's list is not active yet
	stopBy      Instant
	frozenUntil Instant // the end of this node's freeze; 0: not frozen
	stopID      uint64
	flushes     []*flushing

	seen         sight
	quorum       bool
	quorumSince  Instant // when quorum last changed
	firstQuorum  Instant // when a majority was first heard; 0: not yet
	alone        bool    // no majority, and no other voter is heard
	aloneSince   Instant
	ownerAsked   Instant // when the newest AskOwner was asked, for any VIP
	gatewayAsked Instant // when the newest AskGateway was asked
	unanswered   int     // how many AskOwner nobody answered, of all VIPs, ever
	tookAlone    Instant // when a VIP was last taken as a survivor
	allUnfit     bool
	allUnfitEnd  Instant // when allUnfit last ended; 0: never
	everFit      bool    // a node was fit, or had time (Settle) to become fit: no alarm before that

	eff     Effects
	askItem [2][][]AskItem // the items to ask for in this step: [1] of prevotes, then by peer index
	asks    bool           // askItem has some
}

// peer is a node as seen from here.
type peer struct {
	NodeConfig
	index     int
	instance  Instance
	beat      Heartbeat // its newest heartbeat; meaningful only if heard
	heard     bool
	lastHeard Instant // when its newest message that counts came
	beatAt    Instant // when its newest heartbeat came
	direct    Instant // when its newest message that did not come through the gateway came
	relayed   Instant // when its newest message through the gateway came
	relay     bool    // the gateway relays between us, as last known while the peer was heard
	relaySent Instant
	// byRelay says that the peer is heard through the gateway alone; directSince is since
	// when it has been heard directly without a break.
	byRelay     bool
	directSince Instant
	seen        SIPState // this node's own verdict about its PBX
	seenSince   Instant  // when the first of the probes that the verdict rests on began
	seenLast    Instant  // when the last of them began

	alive, fit, differs bool
	toldFit             bool
	unfit               string
	fitSince            Instant
	unfitSince          Instant
	asks                []sentAsk // ring of rememberedAsks, allocated with the first ask
	asksNext            int
	views               []SIPState // by peer index: what it says of the others' PBXes; nil: nothing yet
	reread              bool       // its views are read from its next heartbeat in any case: the nodes or the file changed
	opinions            opinions   // what the others say of its PBX
}

// rememberedAsks is how many of the newest asks to one node are remembered. Only their
// answers can be dated.
const rememberedAsks = 256

// sentAsk is when an ask left. Its answer is dated by it.
type sentAsk struct {
	seq  Seq
	sent Instant
}

// New starts a machine from what was found in the runtime and state directories. It uses
// instance only if no Runtime was found. The random source serves backoffs, nonces and
// the IDs of requests.
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

// Step takes one event and returns what has to happen now. The order is fixed. First
// every lease whose time is over ends, so that the event cannot prolong it. Then the
// event is taken. Then come all rules that may act on the new state.
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
		// The peer has booted: what its old instance said of itself is void. Its grants
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

// seatVoters finds the voters of the active list among the nodes. Only voters are asked
// and counted, however many nodes there are.
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

// due asks for a step at t. A t that is not after now needs none: this step acts on it.
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

// pace is how long after it was asked a question is repeated (§4.4).
func (m *Machine) pace() time.Duration { return max(5*time.Millisecond, m.cfg.Heartbeat/10) }

// Margin is by how much a holder's lease is shorter than its voters' grants, beside the
// allowance for the clocks' drift (§4.1).
func Margin(lease time.Duration) time.Duration { return max(10*time.Millisecond, lease/20) }

// Usable is how long a lease lasts at its holder, counted from the send time
// of the ask: two clocks drift at most 0.1 % apart (§1, §4.4).
func Usable(lease time.Duration) time.Duration { return lease - lease/1000 - Margin(lease) }

// backoff is one to two leases, at random, so that two candidates do not meet again.
func (m *Machine) backoff() time.Duration {
	return m.cfg.Lease + time.Duration(m.rng.Int64N(int64(m.cfg.Lease)))
}
