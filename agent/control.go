package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// Plan answers `sipalive plan`.
func (a *Agent) Plan(ctx context.Context, without []string) (control.Plan, error) {
	plan := control.Plan{Without: without}
	for _, n := range without {
		if a.Config().Node(n) == nil {
			return plan, fmt.Errorf("plan without %s: no such node (configured: %s)", n, a.nodeNames())
		}
	}
	var placed []elect.Placed
	var st elect.Status
	err := a.ask(ctx, func() { placed, st = a.Machine.Plan(nodes(without)...), a.Machine.Status() })
	if err != nil {
		return plan, err
	}
	for i, p := range placed {
		plan.VIPs = append(plan.VIPs, control.PlannedVIP{Name: p.Name, Role: a.names().byID[p.VIP].vip == nil,
			Holder: string(st.VIPs[i].Holder), Would: string(p.Node), Reason: p.Reason})
	}
	return plan, nil
}

func (a *Agent) nodeNames() string {
	var names []string
	for _, n := range a.Config().Nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}

// Do carries out an operator's command and says in words what the result is.
func (a *Agent) Do(ctx context.Context, c control.Command) (string, error) {
	if c.Kind == control.Reload {
		return a.Reload(ctx)
	}
	cmd, err := a.command(c)
	if err != nil {
		return "", err
	}
	var before elect.Status
	start := time.Now()
	answered := make(chan elect.CommandAnswer, 1)
	if err := a.ask(ctx, func() {
		before = a.Machine.Status()
		a.commandID++
		cmd.ID = a.commandID
		a.waiting[cmd.ID] = answered
		a.step(cmd)
	}); err != nil && !(c.Kind == control.Stop && errors.Is(err, errEnded)) {
		return "", err
	}
	select {
	case ans := <-answered:
		if ans.Error != "" {
			return "", errors.New(ans.Error)
		}
	case <-a.stopped:
	case <-a.ended:
		select {
		case <-a.stopped: // the loop ends right after that
		default:
			return "", fmt.Errorf("%s: %w", c, errEnded)
		}
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w", c, context.Cause(ctx))
	}
	return a.outcome(ctx, c, before, start)
}

// command translates the names of a command into elect's identities.
func (a *Agent) command(c control.Command) (elect.Command, error) {
	kinds := map[control.Kind]elect.CommandKind{control.Move: elect.CommandMove, control.Failback: elect.CommandFailback,
		control.Drain: elect.CommandDrain, control.Undrain: elect.CommandUndrain,
		control.Adopt: elect.CommandAdopt, control.Stop: elect.CommandStop,
		control.Freeze: elect.CommandFreeze, control.Thaw: elect.CommandThaw}
	cmd := elect.Command{Kind: kinds[c.Kind], Node: elect.Node(c.Node), For: time.Duration(c.For)}
	if cmd.Kind == 0 {
		return cmd, fmt.Errorf("%s: unknown command", c.Kind)
	}
	if c.Node != "" && a.Config().Node(c.Node) == nil {
		return cmd, fmt.Errorf("%s: no such node (configured: %s)", c, a.nodeNames())
	}
	if c.VIP != "" {
		l := a.names().byName[c.VIP]
		if l == nil {
			return cmd, fmt.Errorf("%s: no such VIP or role (configured: %s)", c, a.leaseNames())
		}
		cmd.VIP = l.id
	}
	return cmd, nil
}

func (a *Agent) leaseNames() string {
	var names []string
	for _, l := range a.names().leases {
		names = append(names, l.name)
	}
	return strings.Join(names, ", ")
}

// outcome says what has changed since before. For a drain it first waits for the VIPs to
// leave.
func (a *Agent) outcome(ctx context.Context, c control.Command, before elect.Status, start time.Time) (string, error) {
	took := time.Since(start)
	if c.Kind == control.Stop {
		return "stopped", nil
	}
	var after elect.Status
	look := func() error {
		var st elect.Status // a variable of this call: the loop may still write it after an ask that failed
		err := a.ask(ctx, func() { st = a.Machine.Status() })
		if err == nil {
			after = st
		}
		return err
	}
	if err := look(); err != nil {
		return "", err
	}
	node := c.Node
	if node == "" {
		node = a.Self.Name
	}
	if c.Kind == control.Drain {
		took = a.awaitDrained(ctx, node, start, before, &after, look)
	}
	lines := a.changes(before, after, took)
	switch c.Kind {
	case control.Drain:
		if still := a.stillHolds(node, after); still != "" {
			return "", errors.New(strings.Join(append([]string{node + " is drained" + still}, lines...), "; "))
		}
		lines = append([]string{node + " is drained"}, lines...)
	case control.Adopt:
		lines = []string{"the file's voter list is active"}
	case control.Freeze:
		lines = append([]string{fmt.Sprintf("%s is frozen for %s: no SIP verdict takes a VIP from it (sipalive thaw %[1]s)", node, time.Duration(c.For))}, lines...)
	case control.Thaw:
		lines = append([]string{node + " is watched again"}, lines...)
	case control.Undrain:
		lines = append([]string{node + " may hold again"}, lines...)
	case control.Move:
		if len(lines) == 0 {
			lines = []string{fmt.Sprintf("%s is at %s already", c.VIP, c.Node)}
		}
	case control.Failback:
		if len(lines) == 0 {
			lines = []string{"nothing to move: every VIP is at home, or its home is not fit"}
		}
	}
	return strings.Join(lines, "; "), nil
}

// drainPatience is how long a drain waits for a VIP that does not leave, besides the
// actions' timeouts.
const drainPatience = 5 * time.Second

func (a *Agent) awaitDrained(ctx context.Context, node string, start time.Time, before elect.Status, after *elect.Status, look func() error) time.Duration {
	for time.Since(start) < drainPatience+prepareTimeout(a.Config())+roleReleaseTimeout(a.Config()) && (len(held(node, *after)) > 0 || onTheWay(before, *after)) {
		select {
		case <-ctx.Done():
			return time.Since(start)
		case <-time.After(5 * time.Millisecond):
		}
		if look() != nil {
			break
		}
	}
	return time.Since(start)
}

// onTheWay reports whether a VIP has left its old holder and no new holder has been heard
// yet.
func onTheWay(before, now elect.Status) bool {
	for _, v := range now.VIPs {
		if v.Holder == "" && holderOf(before, v.ID) != "" {
			return true
		}
	}
	return false
}

// holderOf returns the holder of a VIP in st; "" if the configuration of st has no such
// VIP.
func holderOf(st elect.Status, id elect.VIPID) elect.Node {
	for _, v := range st.VIPs {
		if v.ID == id {
			return v.Holder
		}
	}
	return ""
}

func held(node string, st elect.Status) []elect.VIPID {
	for _, n := range st.Nodes {
		if n.Name == elect.Node(node) {
			return n.Holds
		}
	}
	return nil
}

func (a *Agent) stillHolds(node string, st elect.Status) string {
	ids := held(node, st)
	if len(ids) == 0 {
		return ""
	}
	var names []string
	for _, id := range ids {
		names = append(names, a.names().byID[id].name)
	}
	return fmt.Sprintf(", but still holds %s: no other node can take it (see sipalive events)", strings.Join(names, ", "))
}

func (a *Agent) changes(before, after elect.Status, took time.Duration) (lines []string) {
	for _, v := range after.VIPs {
		was := holderOf(before, v.ID)
		if v.Holder == was || v.Holder == "" {
			continue
		}
		from := string(was)
		if from == "" {
			from = "nobody"
		}
		lines = append(lines, fmt.Sprintf("%s: %s -> %s in %s, epoch %d", a.names().byID[v.ID].name, from, v.Holder, roundMillis(took), v.Epoch))
	}
	return lines
}

func roundMillis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// Status answers `sipalive status`.
func (a *Agent) Status(ctx context.Context) (control.Status, error) {
	var st elect.Status
	var c *config.Config // the configuration that st is about
	var held []control.LockStatus
	err := a.ask(ctx, func() { st, c, held = a.Machine.Status(), a.Config(), a.locks.status() })
	if err != nil {
		return control.Status{}, err
	}
	out := control.Status{Cluster: c.Cluster, Node: a.Self.Name, Quorum: st.Quorum,
		Fence: a.Fence.Kind(), FenceMeans: a.Fence.Explain(), FenceWeak: a.Fence.Weak(),
		Quiet: st.Quiet, Waiting: st.Waiting, AllUnfit: st.AllUnfit, SocketsUnwatched: a.sockets.unwatched(), Counters: a.countersNow()}
	out.MemoryLocked, out.FailbackAuto, out.Lease = a.MemoryLocked, c.Failback == config.FailbackAuto, control.Millis(c.Timing.Lease)
	out.Locks = held
	if out.Scheduling, err = platform.Scheduling(); err != nil {
		out.Scheduling = "unknown"
	}
	for i, n := range st.Nodes {
		out.Nodes = append(out.Nodes, a.nodeStatus(n, c.Nodes[i].Address.String()))
	}
	for _, v := range st.VIPs {
		a.addVIP(&out, v)
	}
	a.keys.addTo(&out)
	return out, nil
}

func (a *Agent) nodeStatus(n elect.NodeStatus, address string) control.NodeStatus {
	s := control.NodeStatus{Name: string(n.Name), Address: address, Alive: n.Alive, Fit: n.Fit, SIP: sipWord(n.SIP), Drained: n.Drained,
		FrozenFor: control.Millis(n.Frozen), Holds: []string{}, Why: n.Unfit, Witness: n.Witness, HeldDown: n.HeldDown, ConfigDiffers: !n.SameConfig}
	if !n.Alive {
		s.Why = "not heard"
	}
	s.ByRelay = n.ByRelay
	if ago, ever := a.network.Answered(n.Name); ever {
		s.Answered = control.Millis(max(ago, time.Millisecond)) // 0 would mean that none was heard
	}
	if a.Config().Survivor != config.SurvivorNever && s.Name != a.Self.Name {
		s.Relay = map[bool]string{true: "known", false: "unknown"}[n.Relay]
	}
	for _, v := range n.Views {
		s.Views = append(s.Views, control.View{From: string(v.Node), SIP: v.SIP.String()})
	}
	s.Targets = targetsStatus(a.probes.of(n.Name))
	if n.Name == elect.Node(a.Self.Name) {
		s.Checks = a.checks.status()
		if no := a.checks.unfit(); s.Why != "" && len(no) > 0 {
			s.Why += ": " + strings.Join(no, "; ")
		}
	}
	for _, role := range []bool{false, true} {
		for _, id := range n.Holds {
			if l := a.names().byID[id]; (l.vip == nil) == role {
				s.Holds = append(s.Holds, l.name)
			}
		}
	}
	return s
}

// targetsStatus returns what this node's own probes say.
func targetsStatus(probers []*sipcheck.Prober) (all []control.TargetStatus) {
	for _, p := range probers {
		r := p.Report()
		s := control.TargetStatus{Name: r.Target.Name, URI: fmt.Sprintf("%s:%d", r.Target.Transport, r.Target.Address.Port()),
			State: r.Verdict.String(), Code: r.Answer.Code, Phrase: r.Answer.Phrase, Misses: r.Misses, Answers: r.RTT.Count,
			Median: control.Millis(r.RTT.Median), P90: control.Millis(r.RTT.P90), P99: control.Millis(r.RTT.P99), Max: control.Millis(r.RTT.Max),
			Timeout: control.Millis(r.Target.Timeout)}
		if r.Err != nil {
			s.Error = r.Err.Error()
		}
		if c := r.Answer.Certificate; c != nil {
			s.CertificateEnds = &control.Since{Time: c.NotAfter}
			if c.Problem != nil {
				s.CertificateProblem = c.Problem.Error()
			}
		}
		all = append(all, s)
	}
	return all
}

// sipWord translates a verdict into a word of status (§8).
func sipWord(s elect.SIPState) string {
	switch {
	case s == elect.SIPUnready: // its checks say no; its SIP answers
		return "up"
	case s.Down():
		return "down"
	case s == elect.SIPUnknown:
		return "unknown"
	}
	return "up"
}

func (a *Agent) addVIP(out *control.Status, v elect.VIPStatus) {
	l := a.names().byID[v.ID]
	since := control.Since{}
	if v.Since != 0 {
		since.Time = time.Now().Add(time.Duration(v.Since - a.Now()))
	}
	if l.vip == nil {
		out.Roles = append(out.Roles, control.RoleStatus{Name: l.name, Holder: string(v.Holder), Epoch: uint64(v.Epoch), Since: since,
			State: v.State.String(), Reason: v.Reason, AwayFrom: l.awayFrom(v.Holder)})
		return
	}
	out.VIPs = append(out.VIPs, control.VIPStatus{Name: l.name, Address: l.address.String(), Holder: string(v.Holder), Epoch: uint64(v.Epoch),
		Since: since, State: v.State.String(), Router: v.Router.String(), Verified: v.Verified, Reason: v.Reason, AwayFrom: l.awayFrom(v.Holder),
		Unchecked: !v.Checked || !a.Config().SIP.Verify && len(a.Config().SIP.OnVIP(l.name)) == 0,
		Targets:   targetsStatus(a.vipTargets.of(v.ID))})
	if v.Holder == elect.Node(a.Self.Name) && v.Router == elect.RouterProven {
		out.VIPs[len(out.VIPs)-1].Proof = a.recorder.proof(v.ID)
	}
}

// countersNow returns the counters of every room, under the names that metrics use.
func (a *Agent) countersNow() map[string]uint64 {
	c := map[string]uint64{
		"loop_steps": a.stats.steps.Load(), "loop_packets_dropped": a.stats.dropped.Load(),
		"loop_slowest_step_us": uint64(a.stats.slowestStep.Load() / 1000), "loop_latest_wakeup_us": uint64(max(a.stats.latestWakeUp.Load(), 0) / 1000),
		"loop_send_errors": a.stats.sendErrors.Load(), "store_errors": a.stats.storeErrors.Load(), "records_lost": a.stats.recordsLost.Load(),
	}
	c["fence_dropped_in"], c["fence_dropped_out"] = a.Fence.Drops()
	c["fence_errors"] = a.stats.fenceErrors.Load()
	a.addNetworkCounters(c)
	a.addWatchCounters(c)
	a.phones.addPhoneCounters(c)
	a.timelines.addTimelineCounters(c)
	all := a.vipTargets.now()
	for _, p := range a.probes.all() {
		all = append(all, p.Prober)
	}
	for _, p := range all {
		s := p.Stats()
		c["sip_sent"] += s.Sent
		c["sip_send_errors"] += s.SendErrors
		c["sip_answered"] += s.Answered
		c["sip_refused"] += s.Refused
		c["sip_timeouts"] += s.Timeouts
		c["sip_malformed"] += s.Malformed
		c["sip_late"] += s.Late
	}
	return c
}

func (a *Agent) addNetworkCounters(c map[string]uint64) {
	n := a.network.Counters()
	for name, v := range map[string]uint64{
		"member_relayed": n.Relayed, "member_relay_errors": n.RelayErrors,
		"member_sent": n.Sent, "member_send_errors": n.SendErrors, "member_received": n.Received, "member_accepted": n.Accepted,
		"member_garbage": n.Garbage, "member_wrong_label": n.WrongLabel, "member_wrong_key": n.WrongKey, "member_wrong_source": n.WrongSource,
		"member_unknown_sender": n.UnknownSender, "member_misdirected": n.Misdirected, "member_duplicate": n.Duplicate,
		"member_replayed": n.Replayed, "member_stale_instance": n.StaleInstance, "member_unproven": n.Unproven,
		"member_self": n.Self, "member_hellos": n.Hellos, "member_keys": n.Keys, "member_keys_dropped": n.KeysDropped, "member_gossip": n.Gossip, "member_gossip_dropped": n.GossipDropped,
		"member_receive_errors": n.ReceiveErrors, "member_streams_refused": n.StreamsRefused,
		"member_joins": n.Joins, "member_joins_failed": n.JoinsFailed, "member_gossip_errors": n.GossipErrors,
	} {
		c[name] = v
	}
}

// Stop hands over what this node holds and ends the agent.
func (a *Agent) Stop(ctx context.Context) error {
	_, err := a.Do(ctx, control.Command{Kind: control.Stop})
	return err
}

// Stopped reports whether everything was handed over because somebody asked for it.
func (a *Agent) Stopped() bool {
	select {
	case <-a.stopped:
		return true
	default:
		return false
	}
}

// EndPatience returns the longest that ending may take once it is asked for: the
// handover, then the actions that follow from it.
func (a *Agent) EndPatience() time.Duration {
	return a.StopPatience() + releaseTimeout(a.Config()) + closePatience
}

// StopPatience returns the longest that the handover may take.
func (a *Agent) StopPatience() time.Duration {
	return prepareTimeout(a.Config()) + roleReleaseTimeout(a.Config()) + 2*a.Config().Timing.Lease
}
