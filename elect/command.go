package elect

import (
	"fmt"
	"slices"
	"time"
)

// command is an operator's request to this agent, until it is done.
type command struct {
	id    uint64
	kind  CommandKind
	node  *peer         // drain, undrain, freeze, thaw
	long  time.Duration // freeze
	moves []cmdMove     // move, failback
	asks  uint64        // ID of the request to node, if that is another node
	sent  Instant       // when the last request to another node left
	by    Instant
}

type cmdMove struct {
	v    *vip
	to   *peer
	asks uint64 // ID of the request to the holder, if that is another node
	done bool
}

// request is another node's command to this one. It is remembered so that a repetition is
// not taken for a second command.
type request struct {
	from *peer
	id   uint64
	v    *vip
	err  string
	at   Instant

	flush  bool     // the actions are under way or have ended
	report []Report // their results
}

// commandTimeout is how long a command may take beyond a move's own time.
const commandTimeout = 2 * time.Second

func (m *Machine) onCommand(c Command) {
	cmd := &command{id: c.ID, kind: c.Kind, by: m.now.Add(commandTimeout)}
	var why string
	switch c.Kind {
	case CommandMove:
		why = m.commandMove(cmd, c)
	case CommandFailback:
		why = m.commandFailback(cmd, c)
	case CommandDrain, CommandUndrain, CommandFreeze, CommandThaw:
		cmd.long = min(c.For, MaxFreeze)
		why = m.commandNode(cmd, c)
	case CommandAdopt:
		m.adopting = true
	case CommandFlush:
		m.commandFlush(c)
		return
	case CommandStop:
		m.stopping, m.stopID = true, c.ID
		m.stopBy = m.now.Add(m.cfg.PrepareTimeout + m.cfg.Lease)
		m.beatNow = true
		return
	default:
		why = "unknown command"
	}
	if why != "" {
		m.answerCommand(c.ID, why)
		return
	}
	m.commands = append(m.commands, cmd)
	m.startCommand(cmd)
}

func (m *Machine) answerCommand(id uint64, why string) {
	if id == 0 {
		return
	}
	if id == m.stopID {
		m.stopID = 0
	}
	m.eff.Answers = append(m.eff.Answers, CommandAnswer{ID: id, Error: why})
}

func (m *Machine) commandMove(cmd *command, c Command) string {
	v, to := m.known[c.VIP], m.peer(c.Node)
	switch {
	case v == nil || v.Lock:
		return fmt.Sprintf("move %s: no such VIP or role", c.VIP)
	case to == nil:
		return fmt.Sprintf("move %s to %s: no such node", v.Name, c.Node)
	case !to.Holder && !v.Role:
		return fmt.Sprintf("move %s to %s: it is a witness (holder = false)", v.Name, c.Node)
	case !to.alive:
		return fmt.Sprintf("move %s to %s: it is not heard", v.Name, c.Node)
	case m.drained(to):
		return fmt.Sprintf("move %s to %s: it is drained (sipalive undrain %s)", v.Name, c.Node, c.Node)
	case m.unfit(to) != "":
		return fmt.Sprintf("move %s to %s: %s", v.Name, c.Node, m.unfit(to))
	case m.holder(v) == nil:
		return fmt.Sprintf("move %s: nobody holds it (%s)", v.Name, m.whyVacant(v))
	case v.closing != nil && v.closing.Successor != to.Name:
		return m.whyClosing(v)
	}
	m.addMove(cmd, v, to)
	return ""
}

func (m *Machine) addMove(cmd *command, v *vip, to *peer) {
	cmd.moves = append(cmd.moves, cmdMove{v: v, to: to, asks: m.rng.Uint64(), done: m.holder(v) == to})
	cmd.by = m.now.Add(m.cfg.PrepareTimeout + 2*m.cfg.Lease + commandTimeout)
	if v.Role {
		cmd.by = cmd.by.Add(m.cfg.ReleaseTimeout)
	}
}

// commandFailback brings VIPs home: to the first fit node of their prefer.
func (m *Machine) commandFailback(cmd *command, c Command) string {
	if c.VIP != "" && m.known[c.VIP] == nil {
		return fmt.Sprintf("failback %s: no such VIP or role", c.VIP)
	}
	for _, v := range m.vips {
		if c.VIP != "" && v.ID != c.VIP {
			continue
		}
		home := m.home(v)
		if c.VIP != "" && home == nil {
			return fmt.Sprintf("failback %s: no node of its prefer is fit", v.Name)
		}
		if home != nil && m.holder(v) != nil {
			m.addMove(cmd, v, home)
		}
	}
	return ""
}

// home is where a VIP belongs: the first fit node of its prefer, or the spare for a role
// that prefers the spare.
func (m *Machine) home(v *vip) *peer {
	if v.PreferSpare {
		loads := m.loads()
		if h := m.holder(v); h != nil && m.isFit(h) && loads[h.index].vips == 0 {
			return h
		}
		for _, r := range m.rank(v, loads, nil) {
			if r.why == WhySparePrefer {
				return r.node
			}
		}
		return nil
	}
	for _, n := range v.Prefer {
		if p := m.peer(n); p != nil && m.isFit(p) {
			return p
		}
	}
	return nil
}

// commandNode finds the one node that a command is to change.
func (m *Machine) commandNode(cmd *command, c Command) string {
	cmd.node, cmd.asks = m.self, m.rng.Uint64()
	if c.Node != "" {
		cmd.node = m.peer(c.Node)
	}
	switch {
	case cmd.node == nil:
		return fmt.Sprintf("%s %s: no such node", c.Kind, c.Node)
	case cmd.node != m.self && !cmd.node.alive:
		return fmt.Sprintf("%s %s: it is not heard", c.Kind, c.Node)
	}
	return ""
}

func (m *Machine) setDrained(on bool) {
	if m.durable.Drained == on {
		return
	}
	m.durable.Drained = on
	m.durableDue, m.beatNow = true, true
	kind := Undrained
	if on {
		kind = Drained
	}
	for _, v := range m.vips {
		v.moveAfter = 0
	}
	m.tell(Transition{Kind: kind, Node: m.self.Name})
}

// changeSelf carries out a command about this node.
func (m *Machine) changeSelf(k CommandKind, long time.Duration) {
	switch k {
	case CommandDrain, CommandUndrain:
		m.setDrained(k == CommandDrain)
	case CommandFreeze:
		m.setFrozen(long)
	case CommandThaw:
		m.setFrozen(0)
	}
}

// startCommand does what this node can do itself.
func (m *Machine) startCommand(cmd *command) {
	switch cmd.kind {
	case CommandDrain, CommandUndrain, CommandFreeze, CommandThaw:
		if cmd.node == m.self {
			m.changeSelf(cmd.kind, cmd.long)
		}
	case CommandMove, CommandFailback:
		for _, mv := range cmd.moves {
			if mv.v.serves() && !mv.done {
				m.startMove(mv.v, cmd.cause(), mv.to)
			}
		}
	}
}

func (c *command) cause() Cause {
	if c.kind == CommandFailback {
		return CauseFailback
	}
	return CauseMove
}

// runCommands ends the commands that are done, fails those that took too long, and
// repeats the requests of the rest.
func (m *Machine) runCommands() {
	m.forgetRequests()
	m.commands = slices.DeleteFunc(m.commands, func(c *command) bool {
		if m.commandDone(c) {
			m.answerCommand(c.id, "")
			return true
		}
		if m.now >= c.by {
			m.answerCommand(c.id, m.whyCommandLate(c))
			return true
		}
		m.due(c.by)
		m.requestAgain(c)
		return false
	})
}

func (m *Machine) commandDone(c *command) bool {
	switch c.kind {
	case CommandAdopt:
		return m.lists.File.Equal(m.lists.Active)
	case CommandDrain, CommandUndrain:
		return c.node == m.self || m.heardSince(c) && c.node.beat.Drained == (c.kind == CommandDrain)
	case CommandThaw:
		return c.node == m.self || m.heardSince(c) && c.node.beat.Frozen == 0
	case CommandFreeze:
		return c.node == m.self || m.frozenAsAsked(c)
	}
	for i := range c.moves {
		mv := &c.moves[i]
		if h := m.holder(mv.v); h == mv.to {
			mv.done = true
		}
		if !mv.done {
			return false
		}
	}
	return true
}

// heardSince reports whether the node was asked and has sent a heartbeat since the command
// came. What an older one says may be over.
func (m *Machine) heardSince(c *command) bool {
	return c.sent != 0 && c.node.beatAt > c.by.Add(-commandTimeout)
}

// frozenAsAsked reports whether the node's freeze is the one that was asked for, not one
// that ran before. The one asked for began after the command, so it ends at least c.long
// after the command came.
func (m *Machine) frozenAsAsked(c *command) bool {
	left, asked := c.node.beat.Frozen, c.by.Add(-commandTimeout)
	end := c.node.beatAt.Add(left + m.cfg.Heartbeat) // an upper bound: the two clocks may differ
	return left > 0 && left <= c.long && end >= asked.Add(c.long)
}

func (m *Machine) whyCommandLate(c *command) string {
	if c.node != nil {
		return fmt.Sprintf("%s %s: no answer", c.kind, c.node.Name)
	}
	for _, mv := range c.moves {
		if !mv.done {
			return fmt.Sprintf("move %s to %s: not done in time", mv.v.Name, mv.to.Name)
		}
	}
	return "not done in time"
}

// requestAgain asks the nodes that have to act, until it shows that they did.
func (m *Machine) requestAgain(c *command) {
	if next := c.sent.Add(min(m.cfg.Heartbeat, 100*time.Millisecond)); c.sent != 0 && m.now < next {
		m.due(next)
		return
	}
	c.sent = m.now
	if c.node != nil {
		m.send(c.node, Request{ID: c.asks, Kind: c.kind, For: c.long})
		return
	}
	for _, mv := range c.moves {
		if h := m.holder(mv.v); !mv.done && h != nil && h != m.self {
			m.send(h, Request{ID: mv.asks, Kind: c.kind, VIP: mv.v.ID, To: mv.to.Name})
		}
	}
}

// failCommands fails every command and request that waited for a move of v.
func (m *Machine) failCommands(v *vip, text string) {
	m.commands = slices.DeleteFunc(m.commands, func(c *command) bool {
		fails := c.waitsFor(v)
		if fails {
			m.answerCommand(c.id, fmt.Sprintf("move %s: %s", v.Name, text))
		}
		return fails
	})
	for _, r := range m.requests {
		if r.v == v && r.err == "" {
			r.err = fmt.Sprintf("move %s: %s", v.Name, text)
			m.send(r.from, Reply{ID: r.id, Error: r.err})
		}
	}
}

func (c *command) waitsFor(v *vip) bool {
	for _, mv := range c.moves {
		if mv.v == v && !mv.done {
			return true
		}
	}
	return false
}

// onRequest carries out another node's command once, however often it comes.
func (m *Machine) onRequest(p *peer, r Request) {
	for _, old := range m.requests {
		if old.from == p && old.id == r.ID {
			old.at = m.now // a request that is forgotten while it is repeated would be carried out twice
			if old.err != "" {
				m.send(p, Reply{ID: r.ID, Error: old.err})
			}
			if r.Kind == CommandFlush && old.flush {
				m.requestedFlush(old)
			}
			return
		}
	}
	req := &request{from: p, id: r.ID, at: m.now}
	m.requests = append(m.requests, req)
	switch r.Kind {
	case CommandDrain, CommandUndrain, CommandFreeze, CommandThaw:
		m.changeSelf(r.Kind, r.For)
		return
	case CommandFlush:
		m.requestedFlush(req)
		return
	case CommandMove, CommandFailback:
		req.err = m.requestedMove(req, r)
	default:
		req.err = "unknown command"
	}
	if req.err != "" {
		m.send(p, Reply{ID: r.ID, Error: req.err})
	}
}

func (m *Machine) requestedMove(req *request, r Request) string {
	v, to := m.known[r.VIP], m.peer(r.To)
	switch {
	case v == nil || v.Lock || to == nil:
		return fmt.Sprintf("move %s to %s: %s has another configuration", r.VIP, r.To, m.self.Name)
	case v.phase != holding:
		return fmt.Sprintf("move %s: %s does not hold it", v.Name, m.self.Name)
	case v.closing != nil:
		return m.whyClosing(v)
	case to == m.self:
		return ""
	}
	req.v = v
	cause := CauseMove
	if r.Kind == CommandFailback {
		cause = CauseFailback
	}
	m.startMove(v, cause, to)
	return ""
}

func (m *Machine) onReply(p *peer, r Reply) {
	for i, c := range m.commands {
		if r.Error != "" && c.hasAsked(r.ID) {
			m.answerCommand(c.id, r.Error)
			m.commands = append(m.commands[:i], m.commands[i+1:]...)
			return
		}
	}
}

func (c *command) hasAsked(id uint64) bool {
	if len(c.moves) == 0 {
		return c.asks == id
	}
	return slices.ContainsFunc(c.moves, func(mv cmdMove) bool { return mv.asks == id && !mv.done })
}

// forgetRequests drops the requests that their senders no longer repeat.
func (m *Machine) forgetRequests() {
	m.requests = slices.DeleteFunc(m.requests, func(r *request) bool { return m.now.Sub(r.at) >= time.Minute+m.cfg.PrepareTimeout })
}
