package elect

import (
	"fmt"
	"strings"
	"time"
)

// The figures of §4.6.
const (
	askEvery   = 100 * time.Millisecond // how often the router is asked from the VIP, and the gateway from this node
	askAgain   = 20 * time.Millisecond  // the same while the last question is unanswered
	ownerEvery = 125 * time.Millisecond // between two questions for an owner, of all VIPs: a switch shuts a port at 16 ARP frames a second (§5.3)
	ownersAll  = 15                     // how many such questions, for any VIP, stay unanswered before a survivor takes a VIP
	ownerLeast = 2                      // how many of them must be for that VIP
	takeEvery  = 250 * time.Millisecond // between two VIPs that are taken: the announcements need room among the questions
	evidence   = 500 * time.Millisecond // how long one answer of the router counts
)

// survival is what a node knows of a VIP from the network, not from its peers.
type survival struct {
	epoch      Epoch   // the epoch under which it is held without a majority; 0: held by lease, or not held
	gateway    Instant // send time of the newest answered question to the gateway from this node's own address
	router     Instant // the same from the VIP: the router's table points here
	asked      Instant // when the newest question from the VIP was asked
	announced  Instant // when the newest of those that also announced was asked
	owner      Instant // when the newest question for the owner was asked; 0: none
	left       Instant // send time of the newest question for the owner that is known to have left
	unanswered int     // how many questions for the owner in a row nobody answered
	before     int     // the machine's unanswered when that row began
	weighed    bool    // whether the newest of them counts is settled
	yields     int     // how often this node had to give it up
	notBefore  Instant // its backoff ends
	from       Epoch   // votes for lower epochs do not count for a lease
	surveyed   Instant // when a majority last said what epochs it knows; 0: not yet
}

// survivals lets this node hold without a majority where the evidence allows that (§4.6).
func (m *Machine) survivals() {
	if m.cfg.Survivor == SurvivorNever {
		return
	}
	m.observeAlone()
	m.noteSleep()
	var asking *vip
	for _, v := range m.vips {
		asks := false
		switch {
		case !v.Announced:
		case v.survives():
			m.askRouter(v)
			m.weigh(v)
			asks = true
		case v.phase == holding:
			m.outlive(v)
		default:
			asks = m.standAlone(v) || v.survives()
		}
		if asks && (asking == nil || v.survival.owner < asking.survival.owner) {
			asking = v
		}
	}
	if asking != nil {
		m.askOwner(asking)
		m.askGateway()
	}
}

// noteSleep starts the count of unanswered questions over if this node has stopped asking
// for a while: a node that was not there to ask has heard no answer either.
func (m *Machine) noteSleep() {
	if m.ownerAsked == 0 || m.now <= m.ownerAsked.Add(2*ownerEvery) {
		return
	}
	m.ownerAsked = 0
	m.askAnew()
}

func (m *Machine) askAnew() {
	for _, v := range m.vips {
		m.askAnewFor(v)
	}
}

// askAnewFor starts the row of unanswered questions for one VIP over.
func (m *Machine) askAnewFor(v *vip) {
	v.survival.unanswered, v.survival.before, v.survival.weighed = 0, m.unanswered, true
}

// survivorHeardBy is when a majority that is back has heard any survivor: after a lease,
// or at once (0) if every other node that may hold has been heard since. Nobody stands
// before that, so the survivor keeps its VIP (§4.6).
func (m *Machine) survivorHeardBy() Instant {
	if m.cfg.Survivor == SurvivorNever {
		return 0
	}
	for _, p := range m.peers {
		if p != m.self && p.Holder && !(p.alive && p.beatAt > m.quorumSince) {
			return m.quorumSince.Add(m.cfg.Lease)
		}
	}
	return 0
}

// observeAlone records since when there is no majority and every other voter is silent,
// directly and through the gateway.
func (m *Machine) observeAlone() {
	alone := m.lists.Active != nil && !m.quorum
	for _, p := range m.peers {
		if alone && p != m.self && p.alive && (p.Voter || m.lists.Active.Has(p.Name)) {
			alone = false
		}
	}
	if alone != m.alone {
		m.alone, m.aloneSince = alone, max(m.now, m.started.Add(m.cfg.Lease))
	}
}

// onlyTwo reports whether there are two voters and this node is one of them: then there
// can be no majority elsewhere. While either of them changes its voter list it is false
// (§4.9).
func (m *Machine) onlyTwo() bool {
	a := m.lists.Active
	if len(a) != 2 || !a.Has(m.self.Name) || !a.Equal(m.lists.File) {
		return false
	}
	for _, p := range m.peers {
		if theirs := p.beat.Lists; p.heard && p != m.self && !(theirs.Active.Equal(a) && theirs.File.Equal(a)) {
			return false
		}
	}
	return true
}

// whyNoSurvivor says why this node may not hold without a majority. It is empty if only
// the evidence is missing.
func (m *Machine) whyNoSurvivor(v *vip) string {
	switch {
	case m.cfg.Survivor == SurvivorNever:
		return "survivor = \"never\""
	case !v.Announced:
		return "only an announced VIP can have a survivor"
	case !m.self.Holder:
		return "this node is a witness"
	case m.stopping:
		return "this agent is stopping"
	case m.unfit(m.self) != "":
		return "this node is unfit: " + m.unfit(m.self)
	case !m.alone:
		return "another voter is still heard"
	}
	for _, p := range m.peers[:m.self.index] {
		if p.alive && p.Holder && m.unfit(p) == "" {
			return fmt.Sprintf("%s comes first", p.Name)
		}
	}
	if m.cfg.Survivor == SurvivorAlways || m.onlyTwo() {
		return ""
	}
	if !v.Relayed {
		return "heartbeats do not go through its gateway, so the others' silence there proves nothing; " + atTheRisk
	}
	var unknown []string
	for _, p := range m.peers {
		if p != m.self && !p.relay && (p.Voter || p.Holder || m.lists.Active.Has(p.Name)) {
			unknown = append(unknown, string(p.Name))
		}
	}
	if len(unknown) > 0 {
		return fmt.Sprintf("the gateway is not known to relay to %s, so their silence proves nothing; %s", strings.Join(unknown, ", "), atTheRisk)
	}
	return ""
}

const atTheRisk = "survivor = \"always\" would take the VIP at the risk of two holders"

// standAlone takes the VIP once nothing has spoken against that for long enough. asks
// reports whether this node asks for the VIP's owner.
func (m *Machine) standAlone(v *vip) (asks bool) {
	s := &v.survival
	if m.quorum && m.now >= m.quorumSince.Add(10*m.cfg.Lease) {
		*s = survival{} // that split is over
	}
	vacant, is := m.vacantSince(v)
	if v.phase != idle || !is || m.now < m.quietUntil || m.now < v.leased || m.whyNoSurvivor(v) != "" {
		m.askAnewFor(v)
		s.owner = 0
		return false
	}
	at := max(vacant, m.aloneSince.Add(m.aloneFor()), s.notBefore)
	if begin := max(vacant, at.Add(-m.askFor())); m.now < begin {
		m.due(begin)
		return false
	}
	m.weigh(v)
	if s.unanswered < ownerLeast || m.unanswered < s.before+ownersAll || m.now < at {
		return true
	}
	if next := m.tookAlone.Add(takeEvery); m.now < next {
		m.due(next)
		return true
	}
	m.takeAlone(v)
	return false
}

// askFor is how long the questions for the owners take. All VIPs share the questions,
// because a node that is alive mostly holds one of the VIPs.
func (m *Machine) askFor() time.Duration {
	n := 0
	for _, v := range m.vips {
		if v.Announced && v.phase == idle {
			n++
		}
	}
	return time.Duration(max(ownersAll, n*ownerLeast)+1) * ownerEvery
}

// weigh counts the VIP's newest question for the owner once its answer would have come.
// The question counts only if it has left and the gateway answers, so that an answer
// would have been heard. If the gateway is silent the count starts over.
func (m *Machine) weigh(v *vip) {
	s := &v.survival
	if s.owner == 0 || s.weighed || m.now < s.owner.Add(ownerEvery) {
		return
	}
	switch s.weighed = true; {
	case max(s.gateway, s.router).Add(evidence) < m.now:
		m.askAnewFor(v)
	case s.left < s.owner:
	default:
		s.unanswered++
		m.unanswered++
	}
}

// aloneFor is how long this node waits while it hears no other voter.
func (m *Machine) aloneFor() time.Duration {
	if m.onlyTwo() {
		return m.cfg.Stagger
	}
	return m.cfg.SurvivorAfter
}

func (m *Machine) question(k QuestionKind, v *vip) {
	m.eff.Questions = append(m.eff.Questions, Question{Kind: k, VIP: v.ID})
}

// takeAlone makes this node a survivor. From then on it does not give its own vote away.
func (m *Machine) takeAlone(v *vip) {
	m.tookAlone = m.now
	yields := v.survival.yields
	v.epoch = v.top() + 1
	v.why, v.freeSince, v.first = WhyAlone, m.now, v.epoch
	if v.noticed == 0 {
		v.noticed = m.aloneSince
	}
	m.acquire(v, m.now.Add(evidence))
	v.survival = survival{epoch: v.epoch, yields: yields}
	m.askAbove(v)
	m.askRouter(v)
}

// askAbove raises v.epoch, which a survivor only asks for: the first lease is above the
// survivor's own epoch.
func (m *Machine) askAbove(v *vip) {
	v.voidVotes()
	v.epoch = max(v.top(), v.survival.epoch) + 1
	v.survival.from = v.epoch
	m.noteAsked(v)
	m.beatNow = true
}

// askRouter keeps asking the router from the VIP. Until the router first answers, its
// table has to be corrected, so the VIP is announced as well.
func (m *Machine) askRouter(v *vip) {
	s := &v.survival
	every := askEvery
	if s.router < s.asked {
		every = askAgain
	}
	if next := s.asked.Add(every); m.now < next {
		m.due(next)
		return
	}
	s.asked = m.now
	announce := v.survives() && s.router == 0 && m.now >= s.announced.Add(askEvery)
	if announce {
		s.announced = m.now
	}
	m.eff.Questions = append(m.eff.Questions, Question{Kind: AskRouter, VIP: v.ID, Announce: announce})
	m.due(m.now.Add(askAgain))
}

// askOwner asks for one VIP whether another host has it.
func (m *Machine) askOwner(v *vip) {
	if next := m.ownerAsked.Add(ownerEvery); m.now < next {
		m.due(next)
		return
	}
	m.ownerAsked, v.survival.owner, v.survival.weighed = m.now, m.now, false
	m.question(AskOwner, v)
	m.due(m.now.Add(ownerEvery))
}

// askGateway asks, for every VIP that is not held and whose owner is asked for, whether
// the gateway answers. It soon asks again where the last question is unanswered, because
// one lost frame is no silence.
func (m *Machine) askGateway() {
	every := askEvery
	for _, v := range m.vips {
		if s := &v.survival; v.phase == idle && s.owner != 0 && s.gateway < m.gatewayAsked {
			every = askAgain
		}
	}
	if next := m.gatewayAsked.Add(every); m.now < next {
		m.due(next)
		return
	}
	m.gatewayAsked = m.now
	for _, v := range m.vips {
		if v.phase == idle && v.survival.owner != 0 {
			m.question(AskGateway, v)
		}
	}
	m.due(m.now.Add(askAgain))
}

// outlive lets one of two voters hold on when it loses the other: there can be no
// majority elsewhere. The holder becomes a survivor before its lease ends, so nothing is
// unbound (§4.6).
func (m *Machine) outlive(v *vip) {
	if !m.onlyTwo() || v.move != nil || m.stopping || m.refused(v) {
		return
	}
	left := v.until.Sub(m.now)
	if early := Usable(m.cfg.Lease) - 3*m.cfg.Heartbeat/2; left > early {
		m.due(v.until.Add(-early))
		return
	}
	m.askRouter(v)
	late := max(50*time.Millisecond, m.cfg.Lease/10)
	if left > late {
		m.due(v.until.Add(-late))
		return
	}
	if end := v.survival.router.Add(evidence); end > m.now && v.survival.router != 0 {
		v.held = v.top() + 1
		v.survival.epoch = v.held
		v.until = max(v.until, end)
		m.tell(Transition{Kind: Survives, VIP: v.ID, Node: m.self.Name, Epoch: v.survival.epoch})
		m.askAbove(v)
	}
}

// refused reports whether this node is unfit, or the other voter is heard and has refused
// for a reason that does not end with time.
func (m *Machine) refused(v *vip) bool {
	if m.unfit(m.self) != "" {
		return true
	}
	for _, p := range m.peers {
		r := v.votes[p.index].refused
		if p != m.self && p.alive && (r == RefusedNoConfidence || r == RefusedList) {
			return true
		}
	}
	return false
}

// leaseAgain turns a survivor's hold into a lease, once a majority is back and has
// granted what the survivor asks for. The majority's first grants only tell which epochs
// were used without it, as a prevote does; the lease is above them all.
func (m *Machine) leaseAgain(v *vip, end Instant) {
	s := &v.survival
	switch {
	case end.Sub(m.now) < Usable(m.cfg.Lease)/2:
		return // a newer answer will do
	case s.surveyed == 0 || m.now > s.surveyed.Add(m.cfg.Lease/2):
		s.surveyed = m.now
		m.askAbove(v)
		return
	}
	v.survival = survival{}
	v.held, v.until = v.epoch, end
	m.tell(Transition{Kind: LeasedAgain, VIP: v.ID, Node: m.self.Name, Epoch: v.epoch})
	m.durableDue, m.beatNow = true, true
}

// surrender gives a survivor's VIP up. The backoff grows each time.
func (m *Machine) surrender(v *vip) {
	n := min(v.survival.yields+1, 10)
	wait := m.backoff() << (n - 1)
	v.survival = survival{yields: n, notBefore: m.now.Add(min(wait, maxHoldDown))}
	v.backoffUntil = m.now.Add(m.backoff())
	m.letGo(v, Release{Cause: CauseCrash})
}

func (m *Machine) whySurvivorEnds(v *vip) string {
	if v.survives() {
		return "the router no longer answers the VIP here"
	}
	return ""
}

func (m *Machine) onEvidence(e Evidence) {
	v := m.known[e.VIP]
	switch {
	case v == nil || e.Sent > m.now:
	case e.Kind == AskOwner:
		v.survival.left = max(v.survival.left, e.Sent)
	case e.Kind == AskGateway && v.phase != holding:
		v.survival.gateway = max(v.survival.gateway, e.Sent)
	case e.Kind == AskRouter && v.phase == holding:
		v.survival.router = max(v.survival.router, e.Sent)
		if v.survives() {
			v.until = max(v.until, v.survival.router.Add(evidence))
		}
	}
}

// onSign takes a sign of another holder. Another node's question for the VIP counts only
// if that node is configured before this one: then that node goes first.
func (m *Machine) onSign(e Sign) {
	v := m.known[e.VIP]
	if v == nil || e.Node == m.self.Name {
		return
	}
	if e.Asks {
		if p := m.peer(e.Node); p == nil || p.index > m.self.index || v.phase == holding {
			return
		}
	}
	if m.askAnewFor(v); e.Node != "" {
		m.askAnew() // one of our nodes is there, and only this node does not hear it
	}
	if v.survives() {
		m.surrender(v)
	}
}

// claims is the epoch that the sender holds under: a survivor only asks for h.Epoch.
func (h Hold) claims() Epoch {
	if h.Survivor != 0 {
		return h.Survivor
	}
	return h.Epoch
}

// outranks reports whether p's claim makes this node, a survivor, yield. Any lease does.
// Of two survivors the one under the higher epoch stays; under the same epoch, the one
// configured first.
func outranks(h Hold, p *peer, v *vip, self *peer) bool {
	if h.Survivor == 0 || h.Survivor != v.survival.epoch {
		return h.Survivor == 0 || h.Survivor > v.survival.epoch
	}
	return p.index < self.index
}

// supersedes reports whether h takes the place of another node's claim. A lease takes
// that of a survivor's claim, never the other way round. Otherwise the epoch must not be
// lower.
func supersedes(h, before Hold) bool {
	if (h.Survivor == 0) != (before.Survivor == 0) {
		return h.Survivor == 0
	}
	return h.claims() >= before.claims()
}

// whyNotAlone says in words why this node does not hold without a majority.
func (m *Machine) whyNotAlone(v *vip) string {
	if why := m.whyNoSurvivor(v); why != "" {
		return why
	}
	s := v.survival
	switch {
	case m.now < s.notBefore:
		return "another holder showed, or the router pointed elsewhere: waiting before another attempt"
	case s.owner != 0 && s.gateway.Add(evidence) < m.now:
		return "the gateway does not answer"
	case s.owner != 0:
		return fmt.Sprintf("%d of %d questions for an owner unanswered", min(m.unanswered-s.before, ownersAll), ownersAll)
	}
	return "waiting before it may be taken alone"
}
