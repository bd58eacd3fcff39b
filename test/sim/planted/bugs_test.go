package planted

const (
	ask       = "elect/ask.go"
	candidate = "elect/candidate.go"
	closing   = "elect/closing.go"
	holder    = "elect/holder.go"
	lists     = "elect/lists.go"
	machine   = "elect/machine.go"
	move      = "elect/move.go"
	reconf    = "elect/reconfigure.go"
	router    = "elect/router.go"
	store     = "elect/store.go"
	successor = "elect/successor.go"
	vip       = "elect/vip.go"
	voter     = "elect/voter.go"
	fit       = "elect/fit.go"
	opinion   = "elect/opinion.go"
	relay     = "elect/relay.go"
	survivor  = "elect/survivor.go"
	lock      = "elect/lock.go"
	rotation  = "keyring/rotation.go"
	keeper    = "keyring/keeper.go"
)

var bugs = []bug{
	{name: "lease counted from receipt", file: ask, old: "m.count(v, p, it, sent)", new: "m.count(v, p, it, max(sent, m.now))"},
	{name: "lease counted from one ask", file: ask, old: "if newer >= need && (", new: "if newer >= min(need, 1) && ("},
	{name: "votes counted twice", file: ask, old: "newer++", new: "newer += 2"},
	{name: "drift margin dropped", file: machine, old: "return lease - lease/1000 - Margin(lease)", new: "return lease"},
	{name: "no quiet time", file: store, old: "m.quietUntil = m.now.Add(max(m.cfg.Lease, m.durable.LongestLease))", new: "m.quietUntil = m.now"},
	{name: "quiet for its own lease only", file: store, old: "m.now.Add(max(m.cfg.Lease, m.durable.LongestLease))", new: "m.now.Add(m.cfg.Lease)", by: "TestScripts/quiet-time-covers-longest-lease"},
	{name: "quiet time forgotten over a restart", file: store, old: "min(m.quietUntil, r.Runtime.QuietUntil)", new: "m.now"},
	{name: "epoch not compared", file: voter, old: "case it.Epoch <= v.barred, g != nil && !own && it.Epoch <= g.Epoch, own && it.Epoch < g.Epoch:", new: "case false:", by: "TestStaleEpochs"},
	{name: "grant answered before it is stored", file: voter, old: "		m.dirty = true\n		m.durableDue", new: "		m.durableDue"},
	{name: "own vote not stored", file: voter, old: "		m.dirty = true\n		m.durableDue", new: "		m.dirty = m.dirty || g.Holder != m.self.Name\n		m.durableDue"},
	{name: "vote carried in a release not stored", file: voter, old: "	m.dirty = true\n	v.retryAt", new: "	v.retryAt"},
	{name: "held by another not looked at", file: voter, old: "case live && !own:", new: "case live && !own && false:"},
	{name: "release before unbind", file: holder, old: "	v.phase = unbinding\n", new: "	v.phase, v.wanted = unbinding, false\n"},
	{name: "successor's lease counted from receipt", file: successor, old: "end := rd.at.Add(Usable(m.cfg.Lease))", new: "end := m.now.Add(Usable(m.cfg.Lease))"},
	{name: "any ready will do", file: successor, old: "rd == nil || rd.nonce == 0 || rd.nonce != r.Nonce", new: "rd == nil", by: "TestReadyNamesItsNonce"},
	{name: "release voted without the vote", file: holder, old: "r.Voted = m.applyRelease(v, r)", new: "m.applyRelease(v, r); r.Voted = true"},
	{name: "late vote revives a released epoch", file: ask, old: "(v.phase == asking || v.phase == holding) && it.Epoch >= max(v.first, v.survival.from) && it.Epoch <= v.epoch", new: "(v.phase == asking || v.phase == holding)"},
	{name: "votes outlive giving up", file: vip, old: "func (v *vip) voidVotes() { clear(v.votes) }", new: "func (v *vip) voidVotes() {}"},
	{name: "stale ask revives a grant", file: "member/guard.go", old: "case w.once&bit == 0 && newest:", new: "case w.once&bit == 0 && newest && false:", by: "TestWindow", pkg: "./member"},
	{name: "grants of different length", file: voter, old: "Lease: a.Lease, until: m.now.Add(a.Lease)", new: "Lease: m.cfg.Lease, until: m.now.Add(m.cfg.Lease)"},
	{name: "restored grant not honoured", file: store, old: "g.until = m.now.Add(g.Lease)", new: "g.until = m.now"},
	{name: "prevote skipped", file: ask, old: "if yes >= m.lists.Active.Majority() {", new: "if true || yes > 0 {"},
	{name: "raised epoch held before it is granted", file: ask, old: "	if n >= m.lists.Active.Majority() {\n		v.held", new: "	if true {\n		v.held", by: "TestScripts/holder-refused-as-stale-raises"},
	{name: "no raise after stale", file: ask, old: "		if it.Epoch == v.epoch {\n			m.raise(", new: "		if false {\n			m.raise("},
	{name: "no waiting between asks", file: candidate, old: "	return until > m.now\n", new: "	return false\n", by: "TestScripts/two-candidates-block"},
	{name: "list check skipped", file: lists, old: "return l.Active != nil && l.Active.Equal(a.Active)", new: "return true", by: "TestScripts/voter-under-another-list"},
	{name: "list taken before the last one is in use", file: lists, old: "return n >= m.lists.Active.Majority()", new: "return true"},
	{name: "list taken that differs by many", file: lists, old: "if l.Active != nil && !l.Active.Adjacent(l.File) {", new: "if false {"},
	{name: "list counts before it is on disk", file: lists, old: "		m.durableDue = true\n	}\n}", new: "		m.durableDue = true\n		m.lists.Active = m.lists.File\n	}\n}", by: "TestListCountsOnceItIsOnDisk"},
	{name: "drained holder moves to what cannot bind", file: move, old: "(c == CauseVerify || c == CauseDrain) &&", new: "c == CauseVerify &&", by: "TestScripts/drained-beside-unbindable"},
	{name: "router reached just now counts", file: router, old: "return m.now >= since.Add(reachedFor)", new: "return true", by: "TestScripts/router-dead"},
	{name: "router reached before a silence counts", file: fit, old: "		m.noteReached(p, false, nil) // nobody", new: "		// nobody", by: "TestScripts/router-dead"},
	{name: "successor that reaches no router either", file: move, old: "if m.cutOff(v) && !m.reaches(r.node, v) {", new: "if false {", by: "TestScripts/link-dead-with-carrier"},
	{name: "doubted by all, and still a reason to refuse", file: voter, old: "&& !(own && m.soonUnfit(p, asker))", new: "", by: "TestScripts/all-doubted-apart"},
	{name: "doubt excuses a sick holder for ever", file: voter, old: "all.doubt() && m.sickFor(holder) < m.settle()", new: "all.doubt()", by: "TestScripts/doubt-does-not-last"},
	{name: "a sick holder's own doubt excuses it", file: voter, old: "all.count(m.verdict(holder, p), -1)", new: "all.count(SIPUnknown, -1)", by: "TestScripts/holder-alone-doubts"},
	{name: "own checks excuse a holder for ever", file: voter, old: "return m.sickFor(holder) < patience", new: "return patience > 0", by: "TestScripts/own-checks-say-no"},
	{name: "own checks alone are a reason to refuse", file: voter, old: "|| own && m.stillServes(asker)", new: "", by: "TestScripts/own-checks-say-no"},
	{name: "moves on for a sickness of all", file: move, old: "if v.move != nil && m.shared(v) {", new: "if false {", by: "TestScripts/all-pbx-sick-amid-a-move"},
	{name: "moves to one whom all doubt", file: move, old: "v.move.cause == CauseSIP && m.doubtedByAll(r.node)", new: "false", by: "TestScripts/all-doubted-apart"},
	{name: "freeze forgotten over a restart", file: store, old: "m.frozenUntil = min(r.Runtime.FrozenUntil, m.now.Add(MaxFreeze))", new: "", by: "TestFreezeOutlivesTheAgent"},
	{name: "no grace after a shared sickness", file: fit, old: "return m.now < m.recovered()", new: "return false"},
	{name: "what a silent node said last counts", file: opinion, old: "if p == m.self || !p.alive {", new: "if p == m.self {", by: "TestScripts/holder-alone-doubts"},
	{name: "what a node says is counted twice", file: opinion, old: "	m.countViews(p, -1)\n	m.readViews(p, now)", new: "	m.readViews(p, now)", by: "TestOpinionsFollow"},
	{name: "opinions of nodes that have left", file: reconf, old: "	m.recountViews(place)\n", new: "", by: "TestOpinionsFollow"},
	{name: "news taken for nothing new", file: fit, old: "return p.heard && o.SIP == b.SIP &&", new: "return p.heard &&", by: "TestScripts/all-pbx-sick"},
	{name: "silence without company", file: fit, old: "case own == SIPSilent && all.doubted > 0:", new: "case own == SIPSilent:"},
	{name: "higher epoch asked for is forgotten", file: ask, old: "if v.epoch > v.asked {", new: "if false {", by: "TestScripts/raised-epoch-nobody-heard"},
	{name: "epoch given up forgotten over a restart", file: store, old: "v.barred, v.givenUp, v.asked = s.Barred, s.GivenUp, s.Asked", new: "v.barred, v.asked = s.Barred, s.Asked", by: "TestGivenUpEpochIsNotHeldAfterRestart"},
	{name: "barred deleted", file: voter, old: "	v.barred = max(v.barred, r.Epoch)\n", new: "", by: "TestReleasedEpochIsBarred"},
	{name: "barred not stored", file: store, old: "s := RuntimeVIP{Barred: v.barred, GivenUp", new: "s := RuntimeVIP{GivenUp", by: "TestReleasedEpochIsBarred"},
	{name: "release without instance", file: voter, old: "g.Holder != r.Holder || g.Instance != r.Instance ||", new: "g.Holder != r.Holder ||", by: "TestReleaseNamesAnInstance"},
	{name: "instance kept over a reboot", file: store, old: "		m.instance = instance\n", new: "		m.instance = 7\n", by: "TestInstanceIsNewPerBoot"},
	{name: "role handed over before its release actions", file: closing, old: "	if !v.Role || v.Lock {\n", new: "	if true {\n", by: "TestScripts/role-released-before-it-is-handed-over"},
	{name: "no lease for the release actions of a sick holder", file: voter, old: " || m.closes(v, asker)", new: "", by: "TestScripts/role-released-before-it-is-handed-over"},
	{name: "higher epoch seen is ignored", file: "elect/beat.go", old: "case h.Epoch > v.epoch:", new: "case false:", by: "TestHigherEpochSeenLetsGo"},
	{name: "release passes a vote over lists", file: voter, old: " || !m.lists.allow(r.Lists)", new: "", by: "TestReleasePassesNoVoteOverLists"},
	{name: "survivor beside a voter", file: survivor, old: "			alone = false\n", new: "", by: "TestSurvivorIsAlone"},
	{name: "survivor without a known relay", file: survivor, old: "if m.cfg.Survivor == SurvivorAlways || m.onlyTwo() {", new: "if true {"},
	{name: "relay learnt from silence", file: relay, old: "		p.relay = false\n", new: "		p.relay = true\n"},
	{name: "verdict from before a cut told after it", file: relay, old: "case p.seenSince < p.directSince:", new: "case false:", by: "TestVerdictOfWhoWasCutOff"},
	{name: "suspicion from before a cut told after it", file: relay, old: ", p.seenLast < p.directSince:", new: ":", by: "TestVerdictOfWhoWasCutOff"},
	{name: "probes that are cut speak against a PBX", file: relay, old: "p.direct < p.seenLast && p.seen != SIPRefused", new: "false", by: "TestVerdictOfWhoWasCutOff"},
	{name: "PBX not asked at once after a cut", file: relay, old: "		if p.seen.Doubted() {\n", new: "		if false {\n", by: "TestVerdictOfWhoWasCutOff"},
	{name: "relayed peer not heard", file: relay, old: "return e.Msg != nil && !(beat && m.heardDirectly(p))", new: "return e.Msg != nil && !beat"},
	{name: "survivor outlives a majority", file: survivor, old: "len(a) != 2 ||", new: "len(a) < 2 ||"},
	{name: "survivor asks nobody", file: survivor, old: "if m.askAnewFor(v); e.Node != \"\" {", new: "if false {"},
	{name: "survivor deaf for a while", file: survivor, old: "	m.ownerAsked = 0\n	m.askAnew()\n", new: "	m.ownerAsked = 0\n", by: "TestSurvivorThatSleptAsksAnew"},
	{name: "survivor without a gateway", file: survivor, old: "case max(s.gateway, s.router).Add(evidence) < m.now:", new: "case false:", by: "TestSurvivorCountsWhatLeft"},
	{name: "survivor beyond its evidence", file: survivor, old: "= 500 * time.Millisecond // how long one answer", new: "= 2 * time.Second // how long one answer"},
	{name: "evidence from the wrong address", file: survivor, old: "case e.Kind == AskRouter && v.phase == holding:", new: "case v.phase == holding:", by: "TestSurvivorLivesOnTheVIPsAnswers"},
	{name: "survivor stays beside a lease", file: survivor, old: "return h.Survivor == 0 || h.Survivor > v.survival.epoch", new: "return h.Survivor > v.survival.epoch", by: "TestSurvivorYieldsToALease"},
	{name: "survivor deaf for signs", file: survivor, old: "	if v.survives() {\n		m.surrender(v)", new: "	if false {\n		m.surrender(v)", by: "TestSurvivorYieldsLonger"},
	{name: "lease under the survivor's epoch", file: survivor, old: "v.epoch = max(v.top(), v.survival.epoch) + 1", new: "v.epoch = v.survival.epoch"},
	{name: "survivor leased without a survey", file: survivor, old: "case s.surveyed == 0 || m.now", new: "case false && m.now", by: "TestLeaseAgainIsAboveAll"},
	{name: "survivor's backoff does not grow", file: survivor, old: "wait := m.backoff() << (n - 1)", new: "wait := m.backoff()", by: "TestSurvivorYieldsLonger"},
	{name: "survivors in no order", file: survivor, old: "p.index > m.self.index || v.phase == holding {", new: "true {", by: "TestSurvivorsTakeTurns"},
	{name: "survivor announces again", file: survivor, old: "announce := v.survives() && s.router == 0 &&", new: "announce := v.survives() &&", by: "TestSurvivorAnnouncesOnce"},
	{name: "question held back counts", file: survivor, old: "case s.left < s.owner:", new: "case false:", by: "TestSurvivorCountsWhatLeft"},
	{name: "sign of a node for one VIP alone", file: survivor, old: "if m.askAnewFor(v); e.Node != \"\" {", new: "if m.askAnewFor(v); false {", by: "TestSignOfOneNodeIsASignForAllVIPs"},
	{name: "owners asked for too fast", file: survivor, old: "ownerEvery = 125 * time.Millisecond", new: "ownerEvery = 60 * time.Millisecond", by: "TestSurvivorsOfManyAskSlowly"},
	{name: "survivor by another gateway's relay", file: survivor, old: "	if !v.Relayed {", new: "	if false {", by: "TestSurvivorBehindTheRelayingGateway"},
	{name: "two voters while the list changes", file: survivor, old: "p.heard && p != m.self && !(theirs", new: "false && !(theirs", by: "TestTwoVotersAreTwo"},
	{name: "refused holder outlives the other", file: survivor, old: "p.alive && (r == RefusedNoConfidence || r == RefusedList)", new: "false && r == 0", by: "TestOutliveUnlessRefused"},
	{name: "holder lets go for a survivor", file: "elect/beat.go", old: "case h.Survivor != 0: // that survivor yields when it hears us\n", new: "", by: "TestLeaseStaysBesideASurvivor"},
	{name: "lease held not cut at a reload", file: reconf, old: "v.until = min(v.until, m.now.Add(Usable(m.cfg.Lease)))", new: "v.until = max(v.until, 0)", by: "TestScripts/reload-lease"},
	{name: "promises for a VIP that left forgotten", file: reconf, old: "			m.strangers[v.ID] = s\n", new: "			_ = s\n", by: "TestScripts/reload-vip-removed"},
	{name: "VIP that left never released", file: holder, old: "v := find(m.everyVIP(), e.VIP)", new: "v := m.known[e.VIP]", by: "TestScripts/reload-vip-removed"},
	{name: "quiet voter counts as an answer", file: holder, old: " && v.votes[p.index].refused != RefusedQuiet", new: "", by: "TestScripts/holder-beside-a-quiet-voter"},
	{name: "lock kept before it is on disk", file: lock, old: "return m.stored.Version >= k.version", new: "return true", by: "TestVoterKeeps"},
	{name: "kept lock granted to another", file: voter, old: "case m.keptFromOthers(v, p) > 0:", new: "case false:"},
	{name: "kept lock forgotten over a reboot", file: store, old: "	m.restoreKept()\n", new: "	m.durable.Kept = nil\n"},
	{name: "lock kept by a minority", file: lock, old: "	return n >= m.lists.Active.Majority()\n", new: "	return n >= 1\n", by: "TestKeptByAMajority"},
	{name: "lock obtained while an earlier command runs", file: store, old: "if v.Lock && s.Asked > 0 {", new: "if false {", by: "TestScripts/lock-holder-dies"},
	{name: "lock renewed for a client that is gone", file: "elect/beat.go", old: " || v.lock.left {", new: " {", by: "TestScripts/lock-holder-dies"},
	{name: "epochs of a forgotten lock forgotten", file: lock, old: "		m.lockFloor = max(m.lockFloor, v.top(), v.asked)\n", new: "", by: "TestForgottenLock"},
	{name: "phones told of by who does not hold", file: "elect/connections.go", old: "!v.serves() && !e.Left", new: "false", by: "TestConnectionsAreTheHoldersWord"},
	{name: "keepalive inside the phone's window", file: "vip/phones/keepalive.go", old: "c.Seq-1, flagACK", new: "c.Seq, flagACK", by: "TestSegments", pkg: "./vip/phones"},
	{name: "whatever is no phone believed", file: "vip/phones/book.go", old: "!c.reachable(vip) || ", new: "", by: "TestBookRefusesWhatIsNoPhone", pkg: "./vip/phones"},
	{name: "connections of an earlier hold left", file: "agent/wakes.go", old: "			b.endStale(vip, to)\n", new: "", by: "TestPhonesWoken", pkg: "./agent"},
	{name: "lease renewed though not stored", file: "agent/binder.go", old: "|| !stored && d.Hold {", new: "|| !stored && d.Hold && (!old.Hold || old.Epoch != d.Epoch) {", by: "TestOldEndOfWhatIsNotStored", pkg: "./agent"},
	{name: "phones woken without a lease", file: "agent/wakes.go", old: "b.a.Now())) || !b.a.Ends.Ahead(vip) {", new: "b.a.Now())) {", by: "TestPhonesWoken", pkg: "./agent"},
	{name: "restored lease not cut", file: store, old: "v.until = min(h.Until, m.now.Add(Usable(m.cfg.Lease)))", new: "v.until = h.Until", by: "TestRestoredLeaseIsCut"},
	{name: "new key seals before all accept it", file: rotation, old: "r.err == nil && r.all()", new: "r.err == nil && (r.step == Accepts || r.all())", by: "TestPowerCut", pkg: "./keyring"},
	{name: "old key dropped before all have ceased to seal with it", file: rotation, old: "r.err == nil && r.all()", new: "r.err == nil && (r.step == Seals || r.all())", by: "TestPowerCut", pkg: "./keyring"},
	{name: "old key dropped while packets are under way", file: rotation, old: "r.from += r.grace", new: "r.from += 0", by: "TestPowerCut", pkg: "./keyring"},
	{name: "keys of nodes that do not hear each other", file: rotation, old: "r.err = r.apart(); r.err == nil", new: "r.err == nil", by: "TestRefusals", pkg: "./keyring"},
	{name: "another rotation not noticed", file: rotation, old: "case is == a.view.after(r.step, r.id).Digest():", new: "case t.View.Stage(r.id) >= r.step:", by: "TestTwoAtOnce", pkg: "./keyring"},
	{name: "order counts twice", file: keeper, old: "		delete(k.challenges, from)\n", new: "		_ = from\n", by: "TestRecordedOrder", pkg: "./keyring"},
	{name: "order without its challenge", file: keeper, old: "a.Order != nil && a.Challenge == k.challenge(from).word", new: "a.Order != nil", by: "TestRecordedOrder", pkg: "./keyring"},
	{name: "order for another ring", file: "keyring/ring.go", old: "case v.Digest() != o.From:", new: "case false:", by: "TestOrders", pkg: "./keyring"},
	{name: "dropped key opens gossip", file: "member/directory.go", old: "if !contains(keys, old) {", new: "if false {", by: "TestReconfigureKeys", pkg: "./member"},
}
