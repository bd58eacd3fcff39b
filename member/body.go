package member

import (
	"time"

	"sipalive/elect"
)

// Each message is described once, for both directions: one method of coder per struct,
// with one line per field, in the order of the wire. To carry a new field, add its line
// here and raise version in codec.go; TestEveryFieldIsCarried fails until that is done. A
// new kind that nobody needs to understand does not need a new version: an agent that
// does not know it drops and counts it.

func (c *coder) encodeBody(m elect.Message) {
	switch m := m.(type) {
	case nil:
		c.b = append(c.b, kindHello)
	case elect.Heartbeat:
		c.b = append(c.b, kindHeartbeat)
		c.heartbeat(&m)
	case elect.Ask:
		c.b = append(c.b, kindAsk)
		c.ask(&m)
	case elect.Answer:
		c.b = append(c.b, kindAnswer)
		c.answer(&m)
	case elect.Prepare:
		c.b = append(c.b, kindPrepare)
		c.prepare(&m)
	case elect.Ready:
		c.b = append(c.b, kindReady)
		c.ready(&m)
	case elect.Release:
		c.b = append(c.b, kindRelease)
		c.release(&m)
	case elect.Released:
		c.b = append(c.b, kindReleased)
		c.released(&m)
	case elect.Passed:
		c.b = append(c.b, kindPassed)
		c.release(&m.Release)
	case elect.Request:
		c.b = append(c.b, kindRequest)
		c.request(&m)
	case elect.Reply:
		c.b = append(c.b, kindReply)
		c.reply(&m)
	case elect.Report:
		c.b = append(c.b, kindReport)
		c.report(&m)
	case elect.Keep:
		c.b = append(c.b, kindKeep)
		c.keep(&m.VIP, &m.Epoch, &m.For)
	case elect.Kept:
		c.b = append(c.b, kindKept)
		c.keep(&m.VIP, &m.Epoch, &m.For)
	case elect.Connections:
		c.b = append(c.b, kindConnections)
		c.connections(&m)
	case elect.Timeline:
		c.b = append(c.b, kindTimeline)
		c.timeline(&m)
	default:
		c.fail("no such message")
	}
}

func (c *coder) decodeBody() elect.Message {
	switch c.byte() {
	case kindHello:
		return nil
	case kindHeartbeat:
		var m elect.Heartbeat
		c.heartbeat(&m)
		return m
	case kindAsk:
		var m elect.Ask
		c.ask(&m)
		return m
	case kindAnswer:
		var m elect.Answer
		c.answer(&m)
		return m
	case kindPrepare:
		var m elect.Prepare
		c.prepare(&m)
		return m
	case kindReady:
		var m elect.Ready
		c.ready(&m)
		return m
	case kindRelease:
		var m elect.Release
		c.release(&m)
		return m
	case kindReleased:
		var m elect.Released
		c.released(&m)
		return m
	case kindPassed:
		var m elect.Passed
		c.release(&m.Release)
		return m
	case kindRequest:
		var m elect.Request
		c.request(&m)
		return m
	case kindReply:
		var m elect.Reply
		c.reply(&m)
		return m
	case kindReport:
		var m elect.Report
		c.report(&m)
		return m
	case kindKeep:
		var m elect.Keep
		c.keep(&m.VIP, &m.Epoch, &m.For)
		return m
	case kindKept:
		var m elect.Kept
		c.keep(&m.VIP, &m.Epoch, &m.For)
		return m
	case kindConnections:
		var m elect.Connections
		c.connections(&m)
		return m
	case kindTimeline:
		var m elect.Timeline
		c.timeline(&m)
		return m
	}
	c.fail("no such message")
	return nil
}

func (c *coder) heartbeat(m *elect.Heartbeat) {
	word(c, &m.Config)
	c.lists(&m.Lists)
	c.duration(&m.Lease, maxLease)
	enum(c, &m.SIP, elect.SIPUnknown, lastSIPState)
	enum(c, &m.Rest, elect.SIPUnknown, lastSIPState)
	c.flags(&m.Drained, &m.HeldDown, &m.AllReach, &m.Relayed)
	c.duration(&m.Frozen, maxAge)
	for i := range list(c, &m.Observes, maxNodes) {
		name(c, &m.Observes[i].Node, required)
		enum(c, &m.Observes[i].SIP, elect.SIPUnknown, lastSIPState)
	}
	for i := range list(c, &m.Excluded, maxVIPs) {
		c.vip(&m.Excluded[i], required)
	}
	for i := range list(c, &m.Reaches, maxVIPs) {
		c.vip(&m.Reaches[i], required)
	}
	for i := range list(c, &m.Holds, maxVIPs) {
		c.hold(&m.Holds[i])
	}
}

func (c *coder) hold(h *elect.Hold) {
	c.vip(&h.VIP, required)
	number(c, &h.Epoch)
	number(c, &h.Survivor)
	c.duration(&h.Age, maxAge)
	enum(c, &h.Cause, elect.CauseNone, lastCause)
	enum(c, &h.Why, elect.WhyNone, lastWhy)
	c.flags(&h.Checked, &h.Verified, &h.Ever, &h.Moving)
	enum(c, &h.Router, elect.RouterUnknown, lastRouterState)
}

func (c *coder) ask(m *elect.Ask) {
	c.flags(&m.Prevote)
	c.lists(&m.Lists)
	c.duration(&m.Lease, maxLease)
	for i := range list(c, &m.Items, maxVIPs) {
		c.vip(&m.Items[i].VIP, required)
		number(c, &m.Items[i].Epoch)
		c.flags(&m.Items[i].Holding)
	}
}

func (c *coder) answer(m *elect.Answer) {
	number(c, &m.Re)
	c.flags(&m.Prevote)
	for i := range list(c, &m.Items, maxVIPs) {
		it := &m.Items[i]
		c.vip(&it.VIP, required)
		number(c, &it.Epoch)
		enum(c, &it.Refusal, elect.Granted, lastRefusal)
		c.duration(&it.Wait, maxAge)
		number(c, &it.Highest)
	}
}

func (c *coder) prepare(m *elect.Prepare) {
	c.vip(&m.VIP, required)
	number(c, &m.Epoch)
	enum(c, &m.Cause, elect.CauseNone, lastCause)
	c.duration(&m.Ago, maxAge)
}

func (c *coder) ready(m *elect.Ready) {
	c.vip(&m.VIP, required)
	number(c, &m.Epoch)
	c.flags(&m.Pending)
	word(c, &m.Nonce)
	c.duration(&m.Lease, maxLease)
	c.lists(&m.Lists)
	c.text(&m.Refused)
}

func (c *coder) release(m *elect.Release) {
	c.vip(&m.VIP, required)
	name(c, &m.Holder, required)
	word(c, &m.Instance)
	number(c, &m.Epoch)
	name(c, &m.Successor, optional)
	word(c, &m.SuccessorInstance)
	word(c, &m.Nonce)
	c.duration(&m.Lease, maxLease)
	c.lists(&m.Lists)
	c.flags(&m.Voted)
	enum(c, &m.Cause, elect.CauseNone, lastCause)
	c.duration(&m.Ago, maxAge)
}

func (c *coder) released(m *elect.Released) {
	c.vip(&m.VIP, required)
	number(c, &m.Epoch)
}

func (c *coder) request(m *elect.Request) {
	number(c, &m.ID)
	enum(c, &m.Kind, elect.CommandMove, lastCommand)
	c.vip(&m.VIP, optional)
	name(c, &m.To, optional)
	c.duration(&m.For, maxAge)
}

func (c *coder) reply(m *elect.Reply) {
	number(c, &m.ID)
	c.text(&m.Error)
}

func (c *coder) report(m *elect.Report) {
	number(c, &m.ID)
	number(c, &m.First)
	number(c, &m.Total)
	for i := range list(c, &m.Results, maxResults) {
		r := &m.Results[i]
		c.text(&r.Action)
		c.flags(&r.OK)
		c.duration(&r.Took, maxAge)
		c.text(&r.Text)
	}
}

func (c *coder) lists(l *elect.Lists) {
	c.voters(&l.File)
	c.voters(&l.Active)
}

func (c *coder) keep(id *elect.VIPID, e *elect.Epoch, d *time.Duration) {
	c.vip(id, required)
	number(c, e)
	c.duration(d, maxAge)
}

func (c *coder) connections(m *elect.Connections) {
	c.vip(&m.VIP, required)
	for i := range list(c, &m.Items, elect.MaxConnections) {
		it := &m.Items[i]
		c.endpoint(&it.Phone)
		it.Port = uint16(c.fixed(uint32(it.Port), 2))
		it.Seq, it.Ack = c.fixed(it.Seq, 4), c.fixed(it.Ack, 4)
	}
}

func (c *coder) timeline(m *elect.Timeline) {
	c.vip(&m.VIP, required)
	number(c, &m.Epoch)
	name(c, &m.Previous, optional)
	enum(c, &m.Cause, elect.CauseNone, lastCause)
	enum(c, &m.Why, elect.WhyNone, lastWhy)
	c.micros(&m.Ago)
	c.micros(&m.Noticed)
	for i := range list(c, &m.Marks, int(lastMark)+1) {
		enum(c, &m.Marks[i].Kind, elect.MarkLastHeard, lastMark)
		c.micros(&m.Marks[i].At)
	}
	for i := range list(c, &m.Actions, elect.MaxActionMarks) {
		it := &m.Actions[i]
		name(c, &it.Action, required)
		c.micros(&it.At)
		c.micros(&it.Took)
		c.flags(&it.OK)
	}
	m.Left = uint16(c.fixed(uint32(m.Left), 2))
	name(c, &m.Outcome, required)
}

func (c *coder) micros(v *elect.Micros) { *v = elect.Micros(c.fixed(uint32(*v), 4)) }
