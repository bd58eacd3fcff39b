package agent

import (
	"context"
	"fmt"
	"time"

	"sipalive/control"
	"sipalive/elect"
	"sipalive/hooks"
)

// flushLane is the runner's lane of the flush actions: one flush runs at a time,
// independently of every VIP.
const flushLane = "-flush"

// Flush answers `sipalive flush`.
func (a *Agent) Flush(ctx context.Context) ([]control.FlushResult, error) {
	if len(a.Config().Actions) == 0 {
		return nil, fmt.Errorf("flush: no actions to run (add [[action]] with on = \"flush\" to the file)")
	}
	answered := make(chan elect.CommandAnswer, 1)
	if err := a.ask(ctx, func() {
		a.commandID++
		a.waiting[a.commandID] = answered
		a.step(elect.Command{ID: a.commandID, Kind: elect.CommandFlush})
	}); err != nil {
		return nil, err
	}
	select {
	case ans := <-answered:
		return flushResults(ans.Reports), nil
	case <-a.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, fmt.Errorf("flush: %w", context.Cause(ctx))
	}
}

func flushResults(reports []elect.NodeReport) (out []control.FlushResult) {
	for _, n := range reports {
		switch {
		case n.Failed != "":
			out = append(out, control.FlushResult{Node: string(n.Node), Text: n.Failed})
		case len(n.Results) == 0:
			out = append(out, control.FlushResult{Node: string(n.Node), OK: true, Text: "it has no flush actions"})
		}
		for _, r := range n.Results {
			out = append(out, control.FlushResult{Node: string(n.Node), Action: r.Action, OK: r.OK, Took: control.Millis(r.Took), Text: r.Text})
		}
	}
	return out
}

// flush runs this node's flush actions for the node that asked.
func (x *actions) flush(due elect.FlushDue) {
	var results []elect.ActionResult // only the runner writes it, one action after the other, until done
	report := func(o hooks.Outcome) {
		text := o.Err
		if text == "" {
			text = o.Note
		}
		results = append(results, elect.ActionResult{Action: o.Action, OK: o.OK, Took: o.Took, Text: text})
	}
	x.chains.Add(1)
	x.a.Runner.Start(flushLane, hooks.Flush, 0, hooks.Event{Node: x.a.Self.Name, Reason: "asked at " + string(due.From)}, hookActions(x.a.Config().Actions), report,
		func(hooks.End) {
			x.chains.Done()
			go x.a.report(elect.Flushed{ID: due.ID, From: due.From, Results: results})
		})
}

// flushTimeout returns the longest that a node's flush actions can take.
func flushTimeout(actions []hooks.Action) time.Duration { return hooks.Longest(actions, hooks.Flush) }
