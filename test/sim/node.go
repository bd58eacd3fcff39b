package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sipalive/elect"
	"sipalive/member"
)

// Node is one machine with its kernel, its PBX, its disks and its agent.
type Node struct {
	Name    elect.Node
	Index   int
	Config  elect.Config
	Machine *elect.Machine // nil while the agent is down
	Rate    float64        // speed of its clock against global time
	Offset  elect.Instant
	Runtime *elect.Runtime                 // content of the runtime directory
	granted map[elect.VIPID]elect.GrantEnd // in the runtime directory too
	Durable *elect.Durable                 // content of the state directory
	Answers []elect.CommandAnswer
	Off     bool // the whole host is off

	// Faults.
	PrepareTook  time.Duration
	ReleaseTook  time.Duration // how long a role's release actions take
	PrepareFail  string
	VerifyFails  bool
	BindFails    bool
	HalfBinds    bool // a bind that fails leaves the address bound and stuck for a while
	StoreFails   bool // the runtime directory cannot be written
	CrashOnStore bool // the agent dies once, right after storing and before any other effect

	PBX   elect.SIPState         // how its PBX behaves: Up, Silent or Refused
	blind []bool                 // by node index: this node does not hear that node's PBX
	known []elect.SIPState       // by node index: its prober's last verdict
	looks []int                  // by node index: the newest look's number, which voids earlier looks
	over  map[int]elect.SIPState // by node index: verdict set by See

	// Meter, if set, measures what this node sends and computes.
	Meter *Meter

	w         *World
	guard     *member.Guard
	greeted   []Time
	walls     int   // more than 0: no agent packet passes, in or out
	cut       []int // by node index: more than 0: packets to that node are lost
	loss      []float64
	bound     []bound  // by VIP index
	clients   []client // the clients of locks, by VIP index
	instance  elect.Instance
	life      int // counts the agent's starts and deaths: what an earlier life scheduled is void
	paused    bool
	thawed    Time // when its last pause ended
	pausedAt  Time
	backlog   []delivery
	wake      Time
	alarm     int // its index in World.alarms
	commandID uint64
	stale     int
	stopped   bool
	stopping  bool
	lastStep  Time
	unwritten *elect.Durable // waits to be written to the state directory
	writing   bool
	same      int // steps within the current instant
}

// delivery is a packet or an event that reached a frozen agent.
type delivery struct {
	h       member.Header
	msg     elect.Message
	ev      elect.Event
	relayed bool
}

// bound is what the kernel knows of a VIP.
type bound struct {
	on    bool
	until elect.Instant
	epoch elect.Epoch
	since elect.Instant
	// survivor: held on evidence, not by a lease.
	survivor bool
	// leaving: the kernel was told to unbind it, and still answers.
	leaving bool
	// tried is when a failing bind was tried last; triedBy is the agent's life that tried
	// it.
	tried   Time
	triedBy int
	kept    bool // the machine believes that it holds; the lease could not be stored, so the kernel was not told
}

func (n *Node) init(nodes, vips int) {
	n.PBX = elect.SIPUp
	n.blind, n.known, n.looks = make([]bool, nodes), make([]elect.SIPState, nodes), make([]int, nodes)
	n.over = map[int]elect.SIPState{}
	n.greeted, n.cut, n.loss = make([]Time, nodes), make([]int, nodes), make([]float64, nodes)
	n.bound, n.clients = make([]bound, vips), make([]client, vips)
}

func (n *Node) local() elect.Instant {
	if n.Rate == 1 {
		return n.Offset + elect.Instant(n.w.Now)
	}
	return n.Offset + elect.Instant(float64(n.w.Now)*n.Rate)
}

func (n *Node) global(t elect.Instant) Time {
	if n.Rate == 1 {
		return Time(t - n.Offset)
	}
	return Time(float64(t-n.Offset) / n.Rate)
}

// effective reports whether the kernel answers for the VIP. Without a fence, an address
// stays until somebody removes it.
func (n *Node) effective(i int) bool {
	b := &n.bound[i]
	return b.on && !n.Off && (!n.w.Fence && !n.w.isLock(i) || n.local() < b.until)
}

// unbindMost is the longest time that the kernel takes to unbind.
const unbindMost = 120 * time.Microsecond

// unfenced reports whether the node answers for the VIP only because no fence ends its
// lease: its agent is frozen or gone, or has just thawed and told the kernel at once.
// Without a fence such an overlap is expected.
func (n *Node) unfenced(i int) bool {
	return n.paused || n.Machine == nil || n.bound[i].leaving && n.w.Now-n.thawed <= Time(unbindMost)
}

// Start starts the agent on what its directories hold. It first unbinds each VIP that the
// new agent cannot take over: its lease has ended, its record is lost, it was held as a
// survivor, or it is not in the node's file.
func (n *Node) Start() {
	if n.Machine != nil {
		return
	}
	n.life++
	n.Off, n.stopped, n.stopping, n.paused = false, false, false, false
	r := elect.Restored{Runtime: n.Runtime, Durable: n.Durable}
	for _, v := range n.w.VIPs {
		if g, is := n.granted[v.ID]; is {
			r.Granted = append(r.Granted, g)
		}
	}
	for i := range n.bound {
		b := &n.bound[i]
		if n.w.isLock(i) {
			continue // locks are not the agent's: they end by themselves
		}
		if b.on && !b.leaving && !b.survivor && n.Runtime != nil && n.local() < b.until && n.configured(n.w.VIPs[i].ID) {
			r.Held = append(r.Held, elect.HeldVIP{VIP: n.w.VIPs[i].ID, Epoch: b.epoch, Until: b.until, Since: b.since})
		} else if b.on {
			*b = bound{}
			n.w.Judge.unbound(n, i)
		}
	}
	m, err := elect.New(n.Config, r, elect.Instance(n.w.Rand.Uint64()|1), n.local(),
		rand.New(rand.NewPCG(n.w.Rand.Uint64(), uint64(n.Index))))
	if err != nil {
		panic(err)
	}
	n.Machine, n.instance = m, m.Instance()
	n.guard = member.NewGuard(n.Name, n.instance, n.w.Rand.Uint64)
	n.w.Judge.started(n)
	n.w.tracef("%s starts, instance %x, restored %v", n.Name, uint16(n.instance), r.Held)
	clear(n.known)
	n.Step(elect.Tick{})
	for _, p := range n.w.Nodes {
		n.look(p)
	}
}

// Kill ends the agent without warning. Its addresses stay until their leases end.
func (n *Node) Kill() {
	if n.Machine == nil {
		return
	}
	n.w.tracef("%s killed", n.Name)
	n.w.Judge.killed(n)
	n.Machine, n.guard = nil, nil
	n.life++
	n.deserted()
	n.paused, n.backlog = false, nil
	n.wakeAt(never)
	n.writing, n.unwritten = false, nil
}

// Forget deletes the runtime directory of a node whose agent does not run.
func (n *Node) Forget() {
	n.w.Judge.forgot(n)
	n.Runtime, n.granted = nil, nil
}

// knew returns the highest epoch of VIP i in the runtime directory.
func (n *Node) knew(i int) elect.Epoch {
	if n.Runtime == nil {
		return 0
	}
	r := n.Runtime.VIPs[n.w.VIPs[i].ID]
	known := max(r.Asked, r.GivenUp)
	if r.Grant != nil {
		known = max(known, r.Grant.Epoch)
	}
	return known
}

// PowerOff switches the whole host off: its runtime directory and its addresses are gone.
func (n *Node) PowerOff() {
	n.Kill()
	n.Forget()
	n.Off = true
	for i := range n.bound {
		if n.bound[i].on {
			n.bound[i] = bound{}
			n.w.Judge.unbound(n, i)
		}
	}
	for _, p := range n.w.Nodes {
		p.look(n)
	}
}

// PowerOn boots the host again and starts the agent.
func (n *Node) PowerOn() {
	n.Off = false
	n.Start()
	for _, p := range n.w.Nodes {
		p.look(n)
	}
}

// Pause freezes the agent. Resume lets it continue with what has arrived.
func (n *Node) Pause() {
	if n.Machine != nil && !n.paused {
		n.w.tracef("%s frozen", n.Name)
		n.paused, n.pausedAt = true, n.w.Now
	}
}

// Resume ends Pause. The agent reads sockets and timers in no particular order.
func (n *Node) Resume() {
	if !n.paused {
		return
	}
	n.w.tracef("%s thawed", n.Name)
	n.paused, n.thawed = false, n.w.Now
	backlog := n.backlog
	n.backlog = nil
	n.w.Judge.live.waited(n, backlog)
	if n.w.Rand.IntN(2) == 0 {
		n.Step(elect.Tick{})
	}
	for _, d := range backlog {
		switch {
		case n.Machine == nil:
			return
		case d.ev != nil:
			n.Step(d.ev)
		default:
			n.judgePacket(d.h, d.msg, d.relayed)
		}
	}
	n.Step(elect.Tick{})
}

// Do gives this node an operator's command and returns the command's id.
func (n *Node) Do(c elect.Command) uint64 {
	n.commandID++
	c.ID = n.commandID
	n.w.tracef("%s is told %+v", n.Name, c)
	n.Step(c)
	return c.ID
}

// Step gives the machine an event and carries out the effects as an agent and a kernel
// would.
func (n *Node) Step(ev elect.Event) {
	if n.Machine == nil {
		return
	}
	if n.paused {
		if _, tick := ev.(elect.Tick); !tick {
			n.backlog = append(n.backlog, delivery{ev: ev})
		}
		return
	}
	n.w.Steps++
	life := n.life
	if life != 0 && n.w.Now == n.lastStep {
		if n.same++; n.same > 100000 {
			panic(fmt.Sprintf("sim: %s steps without end at %s", n, n.w.Now))
		}
	} else {
		n.lastStep, n.same = n.w.Now, 0
	}
	eff := n.step(ev)
	if n.w.Trace != nil {
		n.traceStep(ev, &eff)
	}
	if !n.carryOut(eff) {
		n.Machine.Step(n.local(), elect.Unstored{})
	}
	if n.life != life {
		return
	}
	n.w.Judge.stepped(n, &eff)
	n.wakeAt(max(n.global(n.Machine.Deadline())+1, n.w.Now+1))
}

func (n *Node) later(d time.Duration, ev elect.Event) {
	n.w.push(item{at: n.w.Now + Time(d), n: n, life: n.life, ev: ev})
}

// carryOut carries out effects. It reports whether the runtime record could be written.
func (n *Node) carryOut(eff elect.Effects) (stored bool) {
	stored = true
	if eff.Runtime != nil {
		if stored = !n.StoreFails; stored {
			n.Runtime = eff.Runtime
		}
		if n.CrashOnStore {
			n.CrashOnStore = false
			n.Kill()
			return true
		}
	}
	for _, g := range eff.Granted {
		if n.granted == nil {
			n.granted = map[elect.VIPID]elect.GrantEnd{}
		}
		n.granted[g.VIP] = g
	}
	if eff.Durable != nil {
		n.unwritten = eff.Durable
		n.write()
	}
	n.bind(eff.Want, stored)
	n.bindLocks(eff.Locks, stored)
	if stored {
		for _, o := range eff.Send {
			to := n.w.Node(o.To)
			h := n.guard.Stamp(o.To, o.Seq)
			if !o.Relay {
				n.transmit(to, h, o.Msg)
			} else if n.w.Router != nil {
				n.w.Router.relay(n, to, h, o.Msg)
			}
		}
	}
	for _, q := range eff.Questions {
		if n.w.Router != nil {
			n.w.Router.ask(n, q)
		}
	}
	for _, p := range eff.Prepare {
		fail := n.PrepareFail
		if fail == "" && !n.sipAnswers() {
			fail = "its PBX does not answer"
		}
		took := 50 * time.Microsecond
		if !p.Again {
			took += n.PrepareTook
		}
		n.later(took, elect.Prepared{VIP: p.VIP, Epoch: p.Epoch, Failed: fail})
	}
	for _, p := range eff.Probe {
		n.lookSoon(n.w.Node(p), 2*time.Millisecond)
	}
	for _, t := range eff.Transitions {
		switch _, lock := t.VIP.Lock(); {
		case lock: // no action runs for a lock; only its client does
		case t.Kind == elect.Acquired:
			n.later(time.Millisecond, elect.Verified{VIP: t.VIP, Epoch: t.Epoch, OK: n.sipAnswers() && !n.VerifyFails})
		case t.Kind == elect.ReleaseDue:
			n.later(time.Millisecond+n.ReleaseTook, elect.ReleaseDone{VIP: t.VIP, Epoch: t.Epoch})
		}
	}
	n.Answers = append(n.Answers, eff.Answers...)
	n.stopped = n.stopped || eff.Stopped
	return stored
}

// write writes the newest record to the state directory, one write at a time.
func (n *Node) write() {
	if n.writing || n.unwritten == nil {
		return
	}
	d, life := n.unwritten, n.life
	n.writing, n.unwritten = true, nil
	n.w.At(n.w.DiskTook, func() {
		if n.life != life {
			return // the write died with the agent
		}
		n.writing, n.Durable = false, d
		n.Step(elect.Stored{Version: d.Version})
		n.write()
	})
}

// bindTook is how long it takes to try to bind.
const bindTook = 20 * time.Microsecond

func (n *Node) bind(want []elect.Desired, stored bool) {
	for k := range want {
		d := &want[k]
		i := k
		if n.w.VIPs[i].ID != d.VIP { // some VIPs are not in this node's file
			i = n.w.vipIndex(d.VIP)
		}
		b := &n.bound[i]
		switch {
		case d.Hold && !stored:
			b.kept = !b.on // the machine believes that it holds
		case d.Hold && !b.on && n.BindFails && !n.HalfBinds && !n.w.VIPs[i].Role:
			if n.w.Now >= b.tried+Time(bindTook) || n.life != b.triedBy {
				b.tried, b.triedBy = n.w.Now, n.life
				n.later(bindTook, elect.Bound{VIP: d.VIP, Err: "bind: operation not permitted"})
			}
		case d.Hold:
			b.kept = false
			was := n.effective(i)
			grew := d.Until > b.until || !b.on
			b.leaving = false
			before := *b
			if !b.on {
				b.on, b.since = true, n.local()
				n.later(bindTook, elect.Bound{VIP: d.VIP, On: true, Err: n.halfBound(i)})
			}
			b.until, b.epoch, b.survivor = d.Until, d.Epoch, d.Survivor
			if n.w.Router != nil && !d.Survivor && (before.survivor || !before.on) {
				n.w.Router.announceAll(n, i)
			}
			n.w.Judge.holds(n, i, was, grew, before)
		case b.on && !b.leaving:
			b.leaving = true
			n.unbind(i)
		case b.kept:
			b.kept = false
			n.later(20*time.Microsecond, elect.Bound{VIP: d.VIP})
		}
	}
}

// halfBound returns the error of a bind that failed and could not be undone, "" if binds
// work.
func (n *Node) halfBound(i int) string {
	if !n.BindFails || n.w.VIPs[i].Role {
		return ""
	}
	return "bind: no buffer space; unbind: no buffer space"
}

// stuckFor is how long the kernel keeps a half-bound address.
const stuckFor = 500 * time.Millisecond

// unbind takes the kernel a moment, in which the address still answers. The agent hears
// of the end only if it still is in the same life.
func (n *Node) unbind(i int) {
	life := n.life
	took := 20*time.Microsecond + time.Duration(n.w.Rand.Int64N(int64(unbindMost-20*time.Microsecond)))
	if n.BindFails && n.HalfBinds {
		took += stuckFor
	}
	n.w.At(took, func() {
		b := &n.bound[i]
		if !b.leaving || !b.on {
			return
		}
		*b = bound{}
		n.w.Judge.unbound(n, i)
		if n.life == life {
			n.Step(elect.Bound{VIP: n.w.VIPs[i].ID})
		}
	})
}

// sipAnswers is always true for a witness: it has no PBX, and needs none.
func (n *Node) sipAnswers() bool {
	return n.PBX == elect.SIPUp || !n.own().Holder
}

// own returns the node's entry in its own file.
func (n *Node) own() elect.NodeConfig {
	for _, c := range n.Config.Nodes {
		if c.Name == n.Name {
			return c
		}
	}
	panic("sim: " + n.Name + " is not in its own file")
}

func (n *Node) configured(id elect.VIPID) bool {
	return slices.ContainsFunc(n.Config.VIPs, func(v elect.VIPConfig) bool { return v.ID == id })
}

// Reload gives the running agent its file as it is now.
func (n *Node) Reload() {
	n.w.tracef("%s reloads", n.Name)
	n.Step(elect.Reconfigure{Config: n.Config})
}

func (n *Node) String() string { return fmt.Sprint(n.Name) }
