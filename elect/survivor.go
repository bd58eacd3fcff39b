package elect

import (
	"fmt"
	"strings"
	"time"
)

// The figures of §4.6.
const (
	askEvery   = 100 * time.Millisecond // the router, from the VIP
	askAgain   = 20 * time.Millisecond  // where it has not answered the last time
	ownerEvery = 125 * time.Millisecond // one question for an owner, of all VIPs: a switch shuts a port at 16 ARP frames a second (§5.3)
	ownersAll  = 15                     // of them unanswered, for whichever VIP, before a survivor takes one
	ownerLeast = 2                      // and for that one
	takeEvery  = 250 * time.Millisecond // one VIP: its announcements have to find room among the questions
	evidence   = 500 * time.Millisecond // how long one answer of the router lasts
)

// survival is what a node knows of a VIP from the network, not from its peers.
type survival struct {
	epoch      Epoch   // held under it without a majority; 0: by lease, or not at all
	gateway    Instant // send time of the newest question to the gateway that was answered, from our own address
	router     Instant // the same from the VIP: the router's table points here
	asked      Instant // the newest question from the VIP
	announced  Instant // the newest of those that told the neighbours too
	owner      Instant // the newest question for the owner; 0: none
	left       Instant // the newest of those that is known to have left
	unanswered int     // of those, how many in a row nobody answered
	before     int     // the machine's count when that row began
	weighed    bool    // owner counts among them, or does not
	yields     int     // how often this node had to give it up
	notBefore  Instant // its backoff
	from       Epoch   // votes below it are no votes for a lease
	surveyed   Instant // a majority has said what epochs it knows; 0: not yet
}

// survivals lets this node hold without a majority where the evidence allows
// it (§4.6).
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

// noteSleep: who was not there to ask has heard no answer either.
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

// askAnewFor starts the row of unanswered questions for a VIP anew.
func (m *Machine) askAnewFor(v *vip) {
	v.survival.unanswered, v.survival.before, v.survival.weighed = 0, m.unanswered, true
}

// survivorHeardBy is when a majority that is back has heard whoever survived
// without it: nobody stands before, unless every node has been heard since. A
// survivor keeps its VIP then (§4.6).
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

// observeAlone keeps since when every other voter is silent, directly and
// through the gateway.
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

// onlyTwo reports whether there are two voters and this node is one of them:
// then no majority can be elsewhere. A change of the voter list that is under
// way, at either of them, makes it false (§4.9).
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

// whyNoSurvivor says why this node may not hold without a majority, empty when
// only the evidence is missing.
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

// standAlone reports whether this node asks for the VIP's owner, and takes the
// VIP when nothing has spoken against it for long enough.
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

// askFor is how long the questions for the owners take: all VIPs share them, and
// who is alive mostly holds one of them.
func (m *Machine) askFor() time.Duration {
	n := 0
	for _, v := range m.vips {
		if v.Announced && v.phase == idle {
			n++
		}
	}
	return time.Duration(max(ownersAll, n*ownerLeast)+1) * ownerEvery
}

// weigh counts the newest question once its answer would have come: where it has
// left, and the gateway answers, so that an answer would have been heard.
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

// aloneFor is how long a node waits without any other voter.
func (m *Machine) aloneFor() time.Duration {
	if m.onlyTwo() {
		return m.cfg.Stagger
	}
	return m.cfg.SurvivorAfter
}

func (m *Machine) question(k QuestionKind, v *vip) {
	m.eff.Questions = append(m.eff.Questions, Question{Kind: k, VIP: v.ID})
}

// takeAlone makes this node a survivor. Its own vote is its own from then on.
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

// askAbove makes v.epoch what a survivor asks for: the first lease is above it.
func (m *Machine) askAbove(v *vip) {
	v.voidVotes()
	v.epoch = max(v.top(), v.survival.epoch) + 1
	v.survival.from = v.epoch
	m.noteAsked(v)
	m.beatNow = true
}

// askRouter keeps asking the router from the VIP. Until it first answers, its
// table has to be corrected: it and the neighbours are told meanwhile.
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

// askGateway asks on behalf of every VIP that is asked for and not held whether
// its gateway answers; soon again where it did not, for a lost frame is no
// silence.
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

// outlive lets one of two voters hold on when it loses the other: there is no
// majority elsewhere. It turns survivor before its lease ends, so nothing is
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

// refused reports whether the other voter, being there, has said no for a
// reason that time does not end.
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

// leaseAgain turns a survivor's hold into a lease: a majority is back and has
// granted what it asks for. Its first grants only tell what epochs were used
// without it, as a prevote does; the lease is above them all.
func (m *Machine) leaseAgain(v *vip, end Instant) {
	s := &v.survival
	switch {
	case end.Sub(m.now) < Usable(m.cfg.Lease)/2:
		return // the next answer will do
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

// surrender gives a survivor's VIP up, with growing backoff.
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

// onSign takes a sign of another holder. Another node that asks who has the
// VIP, too, goes first if it is configured first.
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
		m.askAnew() // one of ours is there, and only we do not hear it
	}
	if v.survives() {
		m.surrender(v)
	}
}

// claims is the epoch a holder shows: a survivor only asks for h.Epoch.
func (h Hold) claims() Epoch {
	if h.Survivor != 0 {
		return h.Survivor
	}
	return h.Epoch
}

// outranks reports whether p's claim makes this node, a survivor, yield: any
// lease does, and of two survivors the one under the higher epoch stays, under
// the same epoch the one that is configured first.
func outranks(h Hold, p *peer, v *vip, self *peer) bool {
	if h.Survivor == 0 || h.Survivor != v.survival.epoch {
		return h.Survivor == 0 || h.Survivor > v.survival.epoch
	}
	return p.index < self.index
}

// supersedes reports whether a claim takes the place of another node's.
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
