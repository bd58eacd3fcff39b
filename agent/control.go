package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sipalive/control"
	"sipalive/elect"
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
