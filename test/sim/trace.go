package sim

import (
	"fmt"
	"strings"

	"sipalive/elect"
)

// traceStep traces a step: its event, what it sent and its transitions.
func (n *Node) traceStep(ev elect.Event, eff *elect.Effects) {
	if r, ok := ev.(elect.Received); ok {
		n.w.tracef("  %s <- %s #%d %s", n, r.From, r.Seq&0xfffff, Brief(r.Msg))
	} else if _, tick := ev.(elect.Tick); !tick {
		n.w.tracef("  %s %T%+v", n, ev, ev)
	}
	for _, o := range eff.Send {
		n.w.tracef("  %s -> %s #%d %s", n, o.To, o.Seq&0xfffff, Brief(o.Msg))
	}
	for _, t := range eff.Transitions {
		n.w.tracef("%s: %s", n, Tell(t))
	}
}

// Tell returns a transition as one readable line.
func Tell(t elect.Transition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", t.Kind)
	add := func(show bool, format string, v ...any) {
		if show {
			fmt.Fprintf(&b, format, v...)
		}
	}
	add(t.VIP != "", " %s", t.VIP)
	add(t.Epoch != 0, " epoch %d", t.Epoch)
	switch t.Kind {
	case elect.NodeUp, elect.NodeDown, elect.NodeFit, elect.NodeUnfit, elect.HolderSeen, elect.ConfigDiffers, elect.ConfigSame:
		fmt.Fprintf(&b, " %s", t.Node)
	}
	add(t.Previous != "", " from %s", t.Previous)
	add(t.Successor != "", " to %s", t.Successor)
	add(t.Cause != elect.CauseNone, " cause %s", t.Cause)
	add(t.Why != elect.WhyNone, " (%s)", t.Why)
	add(t.Text != "", ": %s", t.Text)
	return b.String()
}

// Brief returns a message as one readable line.
func Brief(m elect.Message) string {
	var b strings.Builder
	switch m := m.(type) {
	case elect.Heartbeat:
		b.WriteString("heartbeat")
		for _, h := range m.Holds {
			fmt.Fprintf(&b, " holds %s/%d", h.VIP, h.Epoch)
		}
		if m.SIP != elect.SIPUp {
			fmt.Fprintf(&b, " sip %s", m.SIP)
		}
		if m.Drained {
			b.WriteString(" drained")
		}
	case elect.Ask:
		b.WriteString("ask")
		if m.Prevote {
			b.WriteString(" prevote")
		}
		for _, it := range m.Items {
			fmt.Fprintf(&b, " %s/%d", it.VIP, it.Epoch)
		}
	case elect.Answer:
		fmt.Fprintf(&b, "answer #%d", m.Re&0xfffff)
		if m.Prevote {
			b.WriteString(" prevote")
		}
		for _, it := range m.Items {
			fmt.Fprintf(&b, " %s/%d %s", it.VIP, it.Epoch, it.Refusal)
			if it.Wait > 0 {
				fmt.Fprintf(&b, " for %s", it.Wait)
			}
		}
	case elect.Prepare:
		fmt.Fprintf(&b, "prepare %s/%d cause %s", m.VIP, m.Epoch, m.Cause)
	case elect.Ready:
		fmt.Fprintf(&b, "ready %s/%d", m.VIP, m.Epoch)
		switch {
		case m.Pending:
			b.WriteString(" not yet")
		case m.Refused != "":
			fmt.Fprintf(&b, " refused: %s", m.Refused)
		}
	case elect.Release:
		b.WriteString(briefRelease(m))
	case elect.Released:
		fmt.Fprintf(&b, "released %s/%d", m.VIP, m.Epoch)
	case elect.Passed:
		fmt.Fprintf(&b, "passed on: %s", briefRelease(m.Release))
	case elect.Request:
		fmt.Fprintf(&b, "request %d %s to %s", m.Kind, m.VIP, m.To)
	case elect.Reply:
		fmt.Fprintf(&b, "reply %s", m.Error)
	case elect.Report:
		fmt.Fprintf(&b, "report of %d actions", len(m.Results))
	case elect.Keep:
		fmt.Fprintf(&b, "keep %s/%d for %s", m.VIP, m.Epoch, m.For)
	case elect.Kept:
		fmt.Fprintf(&b, "kept %s/%d for %s", m.VIP, m.Epoch, m.For)
	}
	return b.String()
}

func briefRelease(m elect.Release) string {
	s := fmt.Sprintf("release %s/%d of %s", m.VIP, m.Epoch, m.Holder)
	if m.Successor != "" {
		s += fmt.Sprintf(" to %s", m.Successor)
	}
	if m.Voted {
		s += " with its vote"
	}
	return s
}
