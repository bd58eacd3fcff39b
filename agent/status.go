package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/platform"
	"sipalive/sipcheck"
)

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
