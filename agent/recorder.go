package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/hooks"
)

// recorder tells each fact once, to the log and to the journal, in its own goroutine. If
// the log does not take our lines, lines are lost, not heartbeats.
type recorder struct {
	a       *Agent
	facts   chan func()
	open    map[elect.VIPID]*entry // the takeover whose event is still being filled in
	release map[elect.VIPID]*entry // our last release
	ready   map[elect.VIPID][]hooks.Outcome
	warned  map[string]time.Time
	notify  *notifier
	proofs  sync.Map // elect.VIPID: control.Millis from bound to proven, of the takeover in open
}

// entry is a journal event that is still being added to.
type entry struct {
	id    uint64
	epoch elect.Epoch
	zero  elect.Instant    // where its timeline counts from
	took  elect.Transition // if it is a takeover: the transition that began it
	over  bool             // it has an outcome
}

// maxReady bounds the outcomes of prepare actions kept for a takeover that may never
// come.
const maxReady = 32

// warnEvery is the time in which the same warning is logged once.
const warnEvery = time.Minute

func newRecorder(a *Agent) *recorder {
	return &recorder{a: a, facts: make(chan func(), 512), open: map[elect.VIPID]*entry{}, release: map[elect.VIPID]*entry{},
		ready: map[elect.VIPID][]hooks.Outcome{}, warned: map[string]time.Time{}, notify: newNotifier(a)}
}

// run goes on until the last action has ended, because that action's outcome is still to
// be told.
func (r *recorder) run(context.Context) error {
	r.post(func() { r.agentEvent("started") })
	if f := r.a.Fence; f != nil && f.Weak() {
		r.notice(config.NoticeFenceMissing, nil, 0, "fence "+f.Kind()+": "+f.Explain())
	}
	for {
		select {
		case f := <-r.facts:
			f()
			continue
		case <-r.a.actions.ended:
		}
		for len(r.facts) > 0 {
			(<-r.facts)()
		}
		r.agentEvent("stopped")
		return nil
	}
}

func (r *recorder) post(f func()) {
	select {
	case r.facts <- f:
	default:
		r.a.stats.recordsLost.Add(1)
	}
}

func (r *recorder) agentEvent(text string) {
	r.a.Log.Info("agent "+text, "node", r.a.Self.Name)
	r.a.Journal.Add(control.Event{Time: control.Stamp{Time: time.Now()}, Node: r.a.Self.Name, Kind: control.KindAgent, Text: text})
}

// reloaded records that a configuration has come into force.
func (r *recorder) reloaded(text string) {
	r.post(func() {
		r.a.Log.Info("configuration "+text, "node", r.a.Self.Name)
		r.a.Journal.Add(control.Event{Time: control.Stamp{Time: time.Now()}, Node: r.a.Self.Name, Kind: control.KindConfig, Text: text})
	})
}

// warn logs trouble, the same trouble at most once a minute. "The same" means the whole
// text, because one device's trouble must not hide another's.
func (r *recorder) warn(what string, err error) {
	r.post(func() {
		if r.lately(what + ": " + err.Error()) {
			return
		}
		r.a.Log.Warn(what, "node", r.a.Self.Name, "err", err)
	})
}

// maxWarned bounds how many texts are remembered.
const maxWarned = 256

// lately reports whether the same text was said within the last minute, and remembers it.
func (r *recorder) lately(words string) bool {
	if last, seen := r.warned[words]; seen && time.Since(last) < warnEvery {
		return true
	}
	if len(r.warned) >= maxWarned {
		clear(r.warned)
	}
	r.warned[words] = time.Now()
	return false
}

// repeatKey returns the key under which two transitions count as the same. A move in a new
// tenure is another move. For BindFailed the epoch is left out, because each try to bind
// has an epoch of its own.
func repeatKey(t elect.Transition, words string) string {
	if t.Kind == elect.BindFailed {
		t.Epoch = 0
	}
	return fmt.Sprintf("%s %d %s", t.Kind, t.Epoch, words)
}

// retried reports whether a transition comes again every lease or two while what keeps it
// from succeeding lasts. What an operator's own command causes is always told.
func retried(t elect.Transition) bool {
	switch t.Cause {
	case elect.CauseNone, elect.CauseSIP, elect.CauseCheck, elect.CauseVerify, elect.CauseDrain:
		return forms[t.Kind].retried
	}
	return false
}

// wall converts an instant of the boot clock to wall time, for people.
func (r *recorder) wall(t elect.Instant) control.Stamp {
	return control.Stamp{Time: time.Now().Add(time.Duration(t - r.a.Now()))}
}

func (r *recorder) transitions(ts []elect.Transition) {
	for _, t := range ts {
		if name, lock := t.VIP.Lock(); lock {
			r.locked(name, t)
			continue
		}
		at := r.a.Now()
		r.post(func() { r.transition(t, at) })
	}
}

func (r *recorder) transition(t elect.Transition, at elect.Instant) {
	ev := control.Event{Time: r.wall(at), Node: r.a.Self.Name, Kind: forms[t.Kind].event, Epoch: uint64(t.Epoch), Text: t.Text}
	if l := r.a.names().byID[t.VIP]; l != nil {
		ev.VIP = l.name
	}
	if t.Cause != elect.CauseNone {
		ev.Reason = t.Cause.String()
	}
	switch t.Kind {
	case elect.Acquired:
		r.notify.transition(t, ev)
		r.acquired(t, at, ev)
		return
	case elect.LetGo, elect.Lapsed:
		ev.From, ev.To = r.a.Self.Name, string(t.Successor)
		r.superseded(t)
	case elect.MoveStarted, elect.MoveFailed, elect.ReleaseDue:
		ev.From, ev.To = r.a.Self.Name, string(t.Successor)
	case elect.HolderSeen:
		r.a.timelines.held(t)
		ev.To = string(t.Node)
		if t.Previous != t.Node { // otherwise, after a restart, the VIP is where it was
			ev.From = string(t.Previous)
		}
	case elect.RetireDue:
		return // its actions show in the event of the release
	case elect.NodeUp, elect.NodeDown, elect.NodeFit, elect.NodeUnfit, elect.ConfigDiffers, elect.ConfigSame:
		ev.From = string(t.Node)
	}
	ev.Text = words(t, ev.VIP)
	if retried(t) && r.lately(repeatKey(t, ev.Text)) {
		return
	}
	r.log(t, ev)
	r.notify.transition(t, ev)
	id := r.a.Journal.Add(ev)
	if t.Kind == elect.LetGo || t.Kind == elect.ReleaseDue {
		r.release[t.VIP] = &entry{id: id, epoch: t.Epoch, zero: at}
	}
}

// words describes the event to people; its kind is shown before them.
func words(t elect.Transition, vip string) string {
	node, to := string(t.Node), string(t.Successor)
	because := func(s string) string {
		if t.Text == "" {
			return s
		}
		return s + ": " + t.Text
	}
	switch t.Kind {
	case elect.Raised:
		return fmt.Sprintf("%s now under epoch %d, no takeover", vip, t.Epoch)
	case elect.LetGo:
		if to == "" {
			return fmt.Sprintf("%s let go, epoch %d", vip, t.Epoch)
		}
		return fmt.Sprintf("%s handed to %s, epoch %d", vip, to, t.Epoch)
	case elect.ReleaseDue:
		return fmt.Sprintf("%s: its release actions come first, epoch %d", vip, t.Epoch)
	case elect.Lapsed:
		return because(fmt.Sprintf("%s: the lease ended, epoch %d", vip, t.Epoch))
	case elect.Survives:
		return fmt.Sprintf("%s survives here without a majority, epoch %d: no takeover", vip, t.Epoch)
	case elect.LeasedAgain:
		return fmt.Sprintf("%s is held by a majority's lease again, epoch %d: no takeover", vip, t.Epoch)
	case elect.MoveStarted:
		return fmt.Sprintf("%s: asking %s to get ready (%s)", vip, to, t.Cause)
	case elect.MoveFailed:
		return because(vip + " stays here")
	case elect.NodeUp:
		return node + " is heard"
	case elect.NodeDown:
		return node + " fell silent"
	case elect.NodeFit:
		return node + " is fit"
	case elect.NodeUnfit:
		return because(node + " is not fit")
	case elect.AllUnfit:
		return "no node is fit: nobody moves"
	case elect.AllUnfitOver:
		return "a node is fit again"
	case elect.QuorumLost:
		return "no majority of voters is heard"
	case elect.QuorumBack:
		return "a majority of voters is heard"
	case elect.HolderSeen:
		return fmt.Sprintf("%s is at %s, epoch %d", vip, node, t.Epoch)
	case elect.VIPVacant:
		return because("nobody holds " + vip)
	case elect.Drained:
		return node + " is drained"
	case elect.Undrained:
		return node + " may hold again"
	case elect.Frozen:
		return node + " is frozen " + t.Text + ": no SIP verdict takes a VIP from it"
	case elect.Thawed:
		return because(node + " is watched again")
	case elect.ListTaken:
		return because("voters are")
	case elect.ConfigDiffers:
		return node + " runs another configuration"
	case elect.ConfigSame:
		return node + " runs our configuration again"
	case elect.VerifyFailed:
		return because(vip + " does not answer SIP here")
	case elect.ActionFailed:
		return because(vip + ": an action failed that gives it back")
	case elect.BindFailed:
		return t.Text
	}
	return because(t.Kind.String())
}

// form is how a kind of transition is told, beside its words.
type form struct {
	event   string     // its kind in the journal
	level   slog.Level // docs/alarms.md lists warnings and errors
	fails   bool       // Text says what went wrong
	retried bool
}

const warn = slog.LevelWarn

var forms = map[elect.TransitionKind]form{
	elect.Acquired:      {event: control.Takeover},
	elect.Raised:        {event: control.KindRaised},
	elect.Survives:      {event: control.KindSurvivor, level: warn},
	elect.LeasedAgain:   {event: control.KindSurvivor},
	elect.LetGo:         {event: control.KindRelease},
	elect.Lapsed:        {event: control.KindRelease, level: warn},
	elect.ReleaseDue:    {event: control.KindRelease},
	elect.RetireDue:     {event: control.KindRelease}, // not told: its actions show in the event of the release
	elect.MoveStarted:   {event: control.KindMove, retried: true},
	elect.MoveFailed:    {event: control.KindMove, level: warn, fails: true, retried: true},
	elect.NodeUp:        {event: control.KindNode},
	elect.NodeDown:      {event: control.KindNode, level: warn},
	elect.NodeFit:       {event: control.KindNode},
	elect.NodeUnfit:     {event: control.KindNode, level: warn},
	elect.AllUnfit:      {event: control.KindAllUnfit, level: slog.LevelError},
	elect.AllUnfitOver:  {event: control.KindAllUnfit},
	elect.QuorumLost:    {event: control.KindQuorum, level: warn},
	elect.QuorumBack:    {event: control.KindQuorum},
	elect.HolderSeen:    {event: control.KindHolder},
	elect.VIPVacant:     {event: control.KindVacant, level: warn},
	elect.Drained:       {event: control.KindDrain},
	elect.Undrained:     {event: control.KindDrain},
	elect.Frozen:        {event: control.KindFreeze},
	elect.Thawed:        {event: control.KindFreeze},
	elect.ListTaken:     {event: control.KindConfig},
	elect.ConfigDiffers: {event: control.KindConfig, level: warn},
	elect.ConfigSame:    {event: control.KindConfig},
	elect.VerifyFailed:  {event: control.KindVerify, level: warn, fails: true},
	elect.ActionFailed:  {event: control.KindVerify, level: warn, fails: true},
	elect.BindFailed:    {event: control.KindBind, level: slog.LevelError, fails: true, retried: true},
}

func (r *recorder) log(t elect.Transition, ev control.Event) {
	why, err := ev.Reason, ""
	switch {
	case forms[t.Kind].fails:
		err = t.Text
	case t.Text != "":
		why = t.Text
	}
	peer := ""
	if t.Node != elect.Node(r.a.Self.Name) && t.Kind != elect.HolderSeen {
		peer = string(t.Node)
	}
	from := ev.From
	if peer != "" || t.VIP == "" { // then From is the node that the event is about
		from = ""
	}
	attrs := []slog.Attr{slog.String("node", r.a.Self.Name)}
	for _, kv := range [][2]string{{"peer", peer}, {"vip", ev.VIP}, {"from", from}, {"to", ev.To}, {"reason", why}, {"err", err}} {
		if kv[1] != "" {
			attrs = append(attrs, slog.String(kv[0], kv[1]))
		}
	}
	if t.Epoch != 0 {
		attrs = append(attrs, slog.Uint64("epoch", uint64(t.Epoch)))
	}
	r.a.Log.LogAttrs(context.Background(), forms[t.Kind].level, t.Kind.String(), attrs...)
}

// acquired opens the one event of a takeover. Its timeline counts from the moment the
// need was noticed. After a crash or a boot it counts from the moment the VIP became
// vacant; after a crash it also shows when the old holder was last heard.
func (r *recorder) acquired(t elect.Transition, at elect.Instant, ev control.Event) {
	zero := t.Noticed
	if t.Cause == elect.CauseCrash || t.Cause == elect.CauseBoot || zero == 0 || zero > at {
		zero = min(t.Vacant, at)
	}
	ev.Time = r.wall(zero)
	ev.From, ev.To = string(t.Previous), r.a.Self.Name
	ev.Text, ev.Lease = t.Why.String(), control.Millis(t.Lease)
	if t.Cause == elect.CauseCrash && t.Noticed != 0 && t.Noticed < zero {
		ev.Add("last heard", t.Noticed.Sub(zero))
	}
	ev.Add("noticed", 0)
	for _, o := range r.ready[t.VIP] {
		// Older actions belong to a move that came to nothing. One lease of slack: the
		// message that set the time of the need was itself late.
		if elect.Instant(o.Started) >= min(t.Noticed, zero).Add(-r.a.Config().Timing.Lease) {
			addAction(&ev, zero, o)
		}
	}
	delete(r.ready, t.VIP)
	r.proofs.Delete(t.VIP)
	ev.Add("lease", at.Sub(zero))
	r.log(t, ev)
	r.a.timelines.held(t)
	r.open[t.VIP] = &entry{id: r.a.Journal.Add(ev), epoch: t.Epoch, zero: zero, took: t}
}

func addAction(ev *control.Event, zero elect.Instant, o hooks.Outcome) {
	var err error
	if !o.OK {
		err = errors.New(o.Err)
	}
	ev.AddAction(o.Action, elect.Instant(o.Started).Sub(zero), o.Took, o.Output, err)
}

// bound marks when the address was bound and, where it is announced, when that was done.
func (r *recorder) bound(id elect.VIPID, e elect.Epoch, bound, announced elect.Instant, announce bool) {
	r.mark(id, e, "bound", bound)
	if announce {
		r.mark(id, e, "announced", announced)
	}
}

func (r *recorder) mark(id elect.VIPID, e elect.Epoch, name string, at elect.Instant) {
	r.update(id, e, func(ev *control.Event, zero elect.Instant) { ev.Add(name, at.Sub(zero)) })
}

func (r *recorder) complete(id elect.VIPID, e elect.Epoch, outcome string) {
	r.update(id, e, func(ev *control.Event, _ elect.Instant) {
		if ev.Outcome == "" {
			ev.Outcome = outcome
			r.notify.complete(*ev)
		}
	})
}

// notice tells people of something that is not a transition of the machine.
func (r *recorder) notice(what config.Notice, l *lease, e elect.Epoch, text string) {
	r.post(func() {
		ev := control.Event{Time: control.Stamp{Time: time.Now()}, Node: r.a.Self.Name, Kind: string(what), Epoch: uint64(e), Text: text}
		if l != nil {
			ev.VIP = l.name
		}
		r.notify.tell(what, ev, text)
	})
}

// superseded closes a takeover that was let go before it was complete.
func (r *recorder) superseded(t elect.Transition) {
	if en := r.open[t.VIP]; en != nil && !en.over {
		r.fill(en, func(ev *control.Event) { ev.Outcome = "let go before it was complete" })
	}
}

func (r *recorder) update(id elect.VIPID, e elect.Epoch, f func(*control.Event, elect.Instant)) {
	r.post(func() {
		if en := r.open[id]; en != nil && e >= en.epoch {
			r.fill(en, func(ev *control.Event) { f(ev, en.zero) })
		}
	})
}

// fill adds to a takeover's event, and keeps the proof that it contains for status. If
// the event has an outcome, fill has the other nodes told.
func (r *recorder) fill(en *entry, f func(*control.Event)) {
	var now control.Event
	if !r.a.Journal.Update(en.id, func(ev *control.Event) { f(ev); now = *ev }) {
		return
	}
	if took, known := now.Proof(); known {
		r.proofs.Store(en.took.VIP, took)
	}
	if en.over = now.Outcome != ""; en.over {
		r.a.timelines.ended(en.took, en.zero, now)
	}
}

// proof returns how long the router took to reach a VIP taken here; 0: not known.
func (r *recorder) proof(id elect.VIPID) control.Millis {
	took, _ := r.proofs.Load(id)
	known, _ := took.(control.Millis)
	return known
}

// rerun logs that actions which an earlier agent did not end are run again.
func (r *recorder) rerun(l *lease, o hooks.Owed) {
	r.post(func() {
		r.a.Log.Warn("actions that an earlier agent did not end are run again", "node", r.a.Self.Name, "vip", l.name, "epoch", o.Epoch, "reason", string(o.Phase))
	})
}

// action adds an action's outcome to the event it belongs to.
func (r *recorder) action(id elect.VIPID, phase hooks.Phase, e elect.Epoch, o hooks.Outcome) {
	r.post(func() {
		why := o.Err + o.Note
		switch {
		case o.Skipped:
			r.a.Log.Info(o.Action, "node", r.a.Self.Name, "vip", r.a.names().byID[id].name, "epoch", uint64(e), "reason", string(phase), "err", why)
		case why != "":
			r.a.Log.Warn(o.Action, "node", r.a.Self.Name, "vip", r.a.names().byID[id].name, "epoch", uint64(e), "reason", string(phase), "err", why)
		}
		switch phase {
		case hooks.Prepare:
			kept := r.ready[id]
			r.ready[id] = append(kept[max(0, len(kept)+1-maxReady):], o)
			return
		case hooks.Release, hooks.Retire:
			if en := r.release[id]; en != nil {
				r.a.Journal.Update(en.id, func(ev *control.Event) { addAction(ev, en.zero, o) })
			}
			return
		}
		if en := r.open[id]; en != nil {
			r.fill(en, func(ev *control.Event) { addAction(ev, en.zero, o) })
		}
	})
}
