package chaos

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"sipalive/test/lab"
)

// evidence is what was seen of one VIP from outside, and what its nodes said.
type evidence struct {
	vip        string
	addr       netip.Addr
	violations []lab.Violation // of all VIPs
	overlaps   []lab.Overlap   // of addresses, in the kernel's order
	tenures    []lab.Tenure    // without silences inside
	pings      []lab.Ping
	claims     []claim
	absent     []absence // when agents were absent
}

// claim is a node's answer to whether it holds the VIP.
type claim struct {
	node            string
	process         int // its pid: a restarted agent may ask under an epoch that it does not know yet
	holds           bool
	epoch           uint64
	called, replied time.Duration
}

// absence is a period in which a node's agent was killed or stopped, or had just come
// back. In it the fence, not the agent's loop, keeps the address silent.
type absence struct {
	node     string
	from, to time.Duration
}

const (
	tolerance = 10 * time.Millisecond // between two observers' times of one event: one ARP interval
	margin    = 50 * time.Millisecond // of a lease of one second: docs/design.md §4.1
	grace     = 2 * time.Second       // for an agent that has come back to be ready
)

// judge returns what the evidence proves wrong, and notes on what it does not prove.
func judge(e evidence) (wrong, notes []string) {
	for _, check := range []func(evidence) ([]string, []string){oneAnswer, oneAddress, sameOwner, leased, linear} {
		w, n := check(e)
		wrong, notes = append(wrong, w...), append(notes, n...)
	}
	return wrong, notes
}

// oneAnswer: no question is answered by two MACs. There is the exception of
// lab.Violation: a single question, if by the kernel's order the two hosts never had the
// address at once. Then its two copies were delivered apart.
func oneAnswer(e evidence) (wrong, notes []string) {
	var last time.Duration = -time.Hour
	for _, v := range e.violations {
		if v.VIP != e.addr {
			continue
		}
		answered := v.Asked
		for _, a := range v.Answers {
			answered = max(answered, a.At)
		}
		both := slices.ContainsFunc(e.overlaps, func(o lab.Overlap) bool {
			return o.Addr == e.addr && o.From <= answered && (o.To == 0 || o.To >= v.Asked)
		})
		if both || v.Asked-last < 50*time.Millisecond {
			wrong = append(wrong, "two holders: "+v.String())
		} else {
			notes = append(notes, "copies of one question apart, no two had the address: "+v.String())
		}
		last = v.Asked
	}
	return wrong, notes
}

// oneAddress: two hosts whose agents both run have one address for at most the margin
// that the lease keeps. An address alone is no ownership: that of a killed or frozen
// agent stays, silenced by the fence. So this judges only where no fence was needed. The
// margin allows for agents that get too little CPU time on this machine; the observers'
// stalls are added.
func oneAddress(e evidence) (wrong, notes []string) {
	for _, o := range e.overlaps {
		if o.Addr != e.addr {
			continue
		}
		to := o.To
		if to == 0 {
			to = 1<<63 - 1
		}
		excused := slices.ContainsFunc(e.absent, func(a absence) bool {
			return slices.Contains(o.Hosts, a.node) && a.from <= to && a.to+grace >= o.From
		})
		text := fmt.Sprintf("%s: %v had the address at once from %v to %v", e.vip, o.Hosts, o.From, o.To)
		if excused || to-o.From <= margin+e.stalled(o.From, to) {
			notes = append(notes, text+" (an agent away, or within the lease's margin)")
		} else {
			wrong = append(wrong, "two addresses: "+text)
		}
	}
	return wrong, notes
}

// stalled returns the phone's longest stall around a period: how late an observer may be
// there.
func (e evidence) stalled(from, to time.Duration) time.Duration {
	var worst time.Duration
	start, _ := slices.BinarySearchFunc(e.pings, from-time.Second, func(p lab.Ping, t time.Duration) int { return int(p.Sent - t) })
	for i := max(start, 1); i < len(e.pings) && e.pings[i].Sent < min(to, 1<<62)+time.Second; i++ {
		worst = max(worst, e.pings[i].Sent-e.pings[i-1].Sent)
	}
	return worst
}

// sameOwner: each answer to the phone came from the node that answers ARP then. Between
// two tenures ARP proves nothing: answers were lost, or no node held.
func sameOwner(e evidence) (wrong, notes []string) {
	bad, i := 0, 0
	for _, p := range e.pings {
		if p.RTT == 0 {
			continue
		}
		from, to := p.Sent-tolerance, p.Sent+p.RTT+tolerance
		for i < len(e.tenures) && e.tenures[i].To < to {
			i++
		}
		if i == len(e.tenures) {
			break
		}
		if t := e.tenures[i]; t.From >= from || t.Host == p.Server {
			continue
		}
		if s := e.stalled(p.Sent, p.Sent+p.RTT); e.tenures[i].From >= from-s || e.tenures[i].To <= to+s {
			notes = append(notes, fmt.Sprintf("%s: answer by %s at %v beside %s, within an observer's stall of %v", e.vip, p.Server, p.Sent, e.tenures[i].Host, s))
			continue
		}
		if bad++; bad <= 3 {
			wrong = append(wrong, fmt.Sprintf("wrong answer: %s: %s answered SIP asked at %v (%v later), while ARP said %s from %v to %v",
				e.vip, p.Server, p.Sent, p.RTT, e.tenures[i].Host, e.tenures[i].From, e.tenures[i].To))
		}
	}
	return wrong, notes
}

// span is a period in which a node certainly held, by one kind of evidence.
type span struct {
	node     string
	from, to time.Duration
}

// leased compares two kinds of periods: who answered ARP, and who said that it holds. The
// latter runs from the end of the first question to the beginning of the last one, both
// answered yes by one process under one epoch. Two nodes must never overlap.
func leased(e evidence) (wrong, notes []string) {
	for _, c := range spans(e.claims) {
		for _, t := range e.tenures {
			if t.Host == c.node {
				continue
			}
			from, to := max(c.from, t.From), min(c.to, t.To)
			if s := e.stalled(from, to); to-from > 2*tolerance+s {
				wrong = append(wrong, fmt.Sprintf("not leased: %s: %s answered ARP from %v to %v, while %s held from %v to %v",
					e.vip, t.Host, t.From, t.To, c.node, c.from, c.to))
			} else if to-from > 2*tolerance {
				notes = append(notes, fmt.Sprintf("%s: %s beside %s for %v, within an observer's stall of %v", e.vip, t.Host, c.node, to-from, s))
			}
		}
	}
	return wrong, notes
}

func spans(claims []claim) (list []span) {
	last := map[string]claim{} // by node
	at := map[string]int{}
	for _, c := range claims {
		before, is := last[c.node]
		if c.holds {
			if is && before.holds && before.epoch == c.epoch && before.process == c.process {
				list[at[c.node]].to = c.called
			} else {
				at[c.node] = len(list)
				list = append(list, span{c.node, c.replied, c.replied})
			}
		}
		last[c.node] = c
	}
	return list
}

// register is a VIP's lease as one register: who holds it under which epoch.
type register struct {
	node  string
	epoch uint64
}

// linear: the nodes' claims, each true at some moment between question and answer, must
// be those of one register. Its epoch rises with every holder, and a lease that was given
// up is never held again under its epoch.
func linear(e evidence) (wrong, notes []string) {
	result, info := porcupine.CheckOperationsVerbose(model(), history(e.claims), time.Minute)
	switch result {
	case porcupine.Ok:
		return nil, nil
	case porcupine.Unknown:
		return []string{"lease history: " + e.vip + ": not judged within a minute"}, nil
	}
	return []string{"lease history: " + e.vip + ": no order of what the nodes said makes sense" + stuck(info, history(e.claims))}, nil
}

func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return register{} },
		Step: func(state, input, _ any) (bool, any) {
			s, c := state.(register), input.(claim)
			switch {
			case !c.holds && s.node == c.node && s.epoch == c.epoch:
				return true, register{epoch: s.epoch}
			case !c.holds:
				return true, s // given up before, or another node has it by now
			case c.epoch > s.epoch:
				return true, register{c.node, c.epoch}
			}
			return c.epoch == s.epoch && c.node == s.node, s
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
	}
}

// history leaves out claims that say nothing new. Of a run of equal yeses the first and
// the last stay. Of the noes, only one after a yes of the same process stays: it gives up
// that epoch.
func history(claims []claim) (ops []porcupine.Operation) {
	clients := map[string]int{}
	last := map[string]claim{}
	pending := map[string]claim{} // the last yes of a run, not in ops yet
	add := func(c claim) {
		if _, known := clients[c.node]; !known {
			clients[c.node] = len(clients)
		}
		ops = append(ops, porcupine.Operation{ClientId: clients[c.node], Input: c, Call: int64(c.called), Return: int64(c.replied)})
	}
	flush := func(node string) {
		if c, is := pending[node]; is {
			add(c)
			delete(pending, node)
		}
	}
	for _, c := range claims {
		before := last[c.node]
		same := before.process == c.process && before.holds
		switch {
		case c.holds && same && before.epoch == c.epoch:
			pending[c.node] = c
		case c.holds:
			flush(c.node)
			add(c)
		case same:
			flush(c.node)
			gone := c
			gone.epoch = before.epoch
			add(gone)
		}
		last[c.node] = c
	}
	for node := range clients {
		flush(node)
	}
	return ops
}

// stuck shows the claims around the point where no order goes on.
func stuck(info porcupine.LinearizationInfo, ops []porcupine.Operation) string {
	longest := 0
	for _, partition := range info.PartialLinearizations() {
		for _, p := range partition {
			longest = max(longest, len(p))
		}
	}
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	s := ":"
	for _, o := range ops[max(0, longest-4):min(len(ops), longest+4)] {
		s += fmt.Sprintf("\n    %+v", o.Input)
	}
	return s
}
