package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/hooks"
)

// notifier tells people what happened, by the ways of [[notify]], once for the cluster.
// The new holder tells of a takeover. The lowest live node tells of what all nodes see.
// Only the recorder's goroutine uses it.
type notifier struct {
	a       *Agent
	ways    []way
	last    map[string]*told // by event and VIP
	alarms  map[string]*alarm
	again   time.Duration // noticeAgain
	pending chan struct{} // one element per notice under way
}

// way is one [[notify]].
type way struct {
	lane   string
	events []config.Notice
	action hooks.Action
}

// told is what people were last told about one event and VIP.
type told struct {
	at     time.Time
	epoch  uint64
	silent int // how often it has happened since without being told
}

const (
	noticeTimeout = 10 * time.Second
	noticeRetries = 5
	noticeAgain   = time.Minute // the least time between two notices of the same event and VIP
	maxNotices    = 64
	askPatience   = time.Second
)

func newNotifier(a *Agent) *notifier {
	n := &notifier{a: a, last: map[string]*told{}, alarms: map[string]*alarm{}, again: noticeAgain, pending: make(chan struct{}, maxNotices)}
	n.reconfigure()
	return n
}

// reconfigure adopts the ways of the configuration in force.
func (n *notifier) reconfigure() {
	n.ways = nil
	for i, c := range n.a.Config().Notify {
		n.ways = append(n.ways, way{lane: fmt.Sprintf("-notify-%d", i), events: c.Events, action: hooks.Action{
			On: hooks.Notice, Mail: c.Mail, HTTP: c.HTTP, Exec: c.Exec, Timeout: noticeTimeout, Retries: noticeRetries}})
	}
}

// MailServer returns the server to which a configuration hands its mail.
func MailServer(c *config.Config) hooks.MailServer {
	return hooks.MailServer{Server: c.Mail.Server, TLS: hooks.MailTLS(c.Mail.TLS), User: c.Mail.User, PasswordFile: c.Mail.PasswordFile, From: c.Mail.From}
}

// transition tells of a decision of the machine, as the journal describes it.
func (n *notifier) transition(t elect.Transition, ev control.Event) {
	switch t.Kind {
	case elect.VIPVacant:
		n.alarm(config.NoticeVacant, true, ev, ev.Text)
	case elect.Acquired, elect.HolderSeen:
		n.alarm(config.NoticeVacant, false, ev, fmt.Sprintf("%s is held again, by %s", ev.VIP, t.Node))
	case elect.AllUnfit, elect.AllUnfitOver:
		n.alarm(config.NoticeAllUnfit, t.Kind == elect.AllUnfit, ev, ev.Text)
	}
}

// complete tells of a takeover that has come to its outcome here, good or bad.
func (n *notifier) complete(ev control.Event) {
	if len(n.ways) == 0 {
		return
	}
	from := ev.From
	if from == "" {
		from = "nobody"
	}
	var took time.Duration
	for _, m := range ev.Timeline {
		took = max(took, time.Duration(m.At)+time.Duration(m.Took))
	}
	text := fmt.Sprintf("%s: %s -> %s, %s, in %s", ev.VIP, from, ev.To, ev.Reason, roundMillis(took))
	if ev.Outcome != "done" {
		text += ": " + ev.Outcome
	}
	n.tell(config.NoticeTakeover, ev, text)
}

// lowest reports whether no live node comes before this one in the file. An agent that is
// ending cannot find out, and counts as the lowest.
func (n *notifier) lowest() bool {
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	var st elect.Status
	if n.a.ask(ctx, func() { st = n.a.Machine.Status() }) != nil {
		return true
	}
	for _, node := range st.Nodes {
		if node.Alive {
			return node.Name == elect.Node(n.a.Self.Name)
		}
	}
	return true
}

// tell sends a notice by every way that wants it, unless it was told already. The same
// epoch is told once. The same event of the same VIP is told at most once a minute,
// unless it is a takeover.
func (n *notifier) tell(what config.Notice, ev control.Event, text string) {
	key := string(what) + " " + ev.VIP
	before := n.last[key]
	if before != nil && (ev.Epoch != 0 && ev.Epoch == before.epoch || what != config.NoticeTakeover && time.Since(before.at) < n.again) {
		before.silent++
		return
	}
	if before != nil && before.silent > 0 && what != config.NoticeTakeover {
		text += fmt.Sprintf(" (and %d times since %s)", before.silent, before.at.Format(time.TimeOnly))
	}
	n.last[key] = &told{at: time.Now(), epoch: ev.Epoch}
	n.deliver(what, ev, text)
}

// deliver sends a notice by every way that wants it.
func (n *notifier) deliver(what config.Notice, ev control.Event, text string) {
	var body strings.Builder
	fmt.Fprintf(&body, "%s\n\n", text)
	_ = control.WriteEvent(&body, ev, time.Local) // a Builder takes everything
	notice := hooks.Event{Name: string(what), VIP: ev.VIP, Node: n.a.Self.Name, Previous: ev.From, Epoch: ev.Epoch, Reason: ev.Reason,
		Subject: fmt.Sprintf("[sipalive %s] %s", n.a.Config().Cluster, text), Text: body.String()}
	if l := n.a.names().byName[ev.VIP]; l != nil && l.address.IsValid() {
		notice.Address = l.address.String()
	}
	for _, w := range n.ways {
		if w.wants(what) {
			n.send(w, notice)
		}
	}
}

func (w way) wants(what config.Notice) bool {
	for _, e := range w.events {
		if e == what {
			return true
		}
	}
	return false
}

// send hands a notice to the runner. Each way has its own lane, which keeps its notices
// in order.
func (n *notifier) send(w way, ev hooks.Event) {
	select {
	case n.pending <- struct{}{}:
	default:
		n.a.recorder.warn("notify", fmt.Errorf("%d notices wait already: %s is lost", maxNotices, ev.Subject))
		return
	}
	report := func(o hooks.Outcome) {
		if !o.OK {
			n.a.recorder.warn("notify by "+o.Action, fmt.Errorf("%s", o.Err))
		}
	}
	n.a.Runner.Start(w.lane, hooks.Notice, 0, ev, []hooks.Action{w.action}, report, func(hooks.End) { <-n.pending })
}
