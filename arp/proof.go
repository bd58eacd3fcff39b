package arp

import (
	"fmt"
	"net/netip"
	"time"
)

// RouterState says whether the router reaches a VIP here.
type RouterState uint8

// The states, in the words of status (design §8). RouterUnknown: the gateway has never
// answered a ping, or there is none. RouterUnproven: it answers, or did, but not to the
// VIP.
const (
	RouterUnknown RouterState = iota
	RouterUnproven
	RouterProven
)

func (s RouterState) String() string {
	return [...]string{"unknown", "unproven", "proven"}[min(s, RouterProven)]
}

// Proof is what a Watch tells of a VIP's router: a new state, or that the VIP stayed
// unproven for Patience.
type Proof struct {
	VIP         netip.Addr
	State       RouterState
	At          time.Duration // boot clock
	Sent        time.Duration // RouterProven: when the answered ping was sent
	Changed     bool          // State differs from the last one
	First       bool          // RouterProven for the first time since Hold
	Lost        bool          // RouterUnproven, after it was proven
	Unreachable bool          // unproven for Patience now; told once until it is proven
	Gateway     netip.Addr
	Why         string // why it is not proven, in words
}

// Patience is how long a VIP may stay unproven before that is reported.
const Patience = 10 * time.Second

// The pace of a proof: first pings quickly, then one every provePause until one is
// answered. In between, the router is told again where the VIP is.
const (
	provePause = 400 * time.Millisecond
	askFirst   = 100 * time.Millisecond
	askLast    = 5 * time.Second
	missesMost = 5 // unanswered pings after which a proven VIP is unproven

	seekFrom = 800 * time.Millisecond // the pause from which on everybody is asked who has the VIP
)

var firstPauses = [...]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}

// watched is one VIP that a Watch knows.
type watched struct {
	Link
	gw    *gateway
	held  bool
	alone bool          // held without a majority: it speaks for itself only when Ask says so (§4.6)
	since time.Duration // since when it is held
	state RouterState

	proving  bool // pinging until the next answer
	first    bool // no answer yet since it is held
	tries    int  // pings in this round
	nextPing time.Duration
	nextAsk  time.Duration
	askPause time.Duration
	unproven time.Duration // since when; 0: it is not unproven
	told     bool          // told that it is unreachable
	detour   hardwareAddr  // the other MAC that brought an answer in this round
	sought   time.Duration // when everybody was last asked who has the VIP; 0: never

	rival claims
}

func (v *watched) hold(w *Watch, now time.Duration, alone bool) {
	if v.alone = alone; alone {
		v.rival.healAt, v.rival.turnAt = 0, 0
	}
	if !v.held {
		v.held, v.since, v.first = true, now, true
		v.state, v.unproven, v.told = RouterUnknown, 0, false
		v.rival = claims{}
	} else {
		v.gw.lookAt = 0
	}
	v.begin(now)
	v.judge(w, now)
}

// begin starts a round: pings until one is answered.
func (v *watched) begin(now time.Duration) {
	v.proving, v.tries, v.detour = true, 0, hardwareAddr{}
	v.nextPing, v.nextAsk, v.askPause = now, now+askFirst, askFirst
	g := v.gw
	if g.urgent == 0 {
		g.urgent = now
	}
	// An answer to our own address shows whether the router is gone or only does not know
	// the VIP is here.
	g.pingAt = min(g.pingAt, now+2*askFirst)
	if !g.hop.IsValid() {
		g.lookAt = now
	}
}

func (v *watched) tick(w *Watch, now time.Duration) (next time.Duration) {
	if now >= v.nextPing {
		if !v.proving {
			v.begin(now)
		}
		v.prove(w, now)
	}
	if v.proving && now >= v.nextAsk {
		v.urge(w, now)
	}
	next = v.nextPing
	if v.proving {
		next = min(next, v.nextAsk)
	}
	if v.unproven != 0 && !v.told {
		if now-v.unproven >= w.patience {
			v.told = true
			v.tell(w, Proof{Unreachable: true, At: now})
			return next
		}
		next = min(next, v.unproven+w.patience)
	}
	return next
}

// prove sends one more ping.
func (v *watched) prove(w *Watch, now time.Duration) {
	v.judge(w, now)
	if v.gw.resolved {
		w.ping(now, v.gw, v)
		v.tries++
	} else {
		v.gw.resolveAt = min(v.gw.resolveAt, now)
	}
	v.nextPing = now + provePause
	if v.gw.heard == 0 {
		v.nextPing = now + v.gw.pause(now)
	}
	if v.first && v.tries > 0 && v.tries <= len(firstPauses) {
		v.nextPing = now + firstPauses[v.tries-1]
	}
}

// urge tells the router again where the VIP is, each time after a longer pause: by
// broadcast, and by a question to the router alone in the VIP's name. Even a table that
// takes no announcement learns from that question (measured).
func (v *watched) urge(w *Watch, now time.Duration) {
	if v.alone || v.tries == 0 || v.rival.turnAt != 0 { // no ping has left yet, or a rival speaks: rivalTick tells the router
		v.nextAsk = now + askFirst
		return
	}
	if !v.Silent {
		if v.gw.resolved && w.o.Announcer.may(v.VIP) && w.ask(v.gw, v.VIP, true, urgentFrames) {
			w.stats.Asked++
			v.nextPing = min(v.nextPing, now+firstPauses[0])
		}
		if v.askPause > askFirst && v.rival.healAt == 0 { // the rival would answer a broadcast
			w.o.Announcer.Repeat(v.VIP)
		}
		if v.askPause >= seekFrom {
			v.sought = now
			w.seekOwner(v)
		}
	}
	v.askPause = min(2*v.askPause, askLast)
	v.nextAsk = now + v.askPause
}

// judge sets the state while there is no answer yet.
func (v *watched) judge(w *Watch, now time.Duration) {
	state := v.state
	switch {
	case v.gw.heard == 0 && v.first:
		state = RouterUnknown
	case v.first, v.tries >= missesMost:
		state = RouterUnproven
	}
	if state == v.state {
		return
	}
	v.state, v.unproven = state, 0
	if state == RouterUnproven {
		v.unproven = now
	}
	v.tell(w, Proof{Changed: true, Lost: state == RouterUnproven && !v.first, At: now})
}

// proven takes an answer that counts.
func (v *watched) proven(w *Watch, now, sent time.Duration) {
	p := Proof{Changed: v.state != RouterProven, First: v.first, Sent: sent, At: now}
	v.state, v.first, v.proving, v.told, v.unproven = RouterProven, false, false, false, 0
	v.gw.heard, v.gw.lastWord = max(v.gw.heard, sent), now
	v.nextPing = now + w.o.Refresh
	w.calm(v.gw)
	if p.Changed {
		v.tell(w, p)
	}
}

// calm ends the haste around a gateway if no proof waits for it any more.
func (w *Watch) calm(g *gateway) {
	for _, v := range w.vips {
		if v.gw == g && v.held && v.proving {
			return
		}
	}
	g.urgent = 0
}

func (v *watched) tell(w *Watch, p Proof) {
	p.VIP, p.State, p.Gateway = v.VIP, v.state, v.gw.hop
	if p.State != RouterProven {
		p.Why = v.why()
	}
	if w.o.OnRouter != nil {
		w.told = append(w.told, func() { w.o.OnRouter(p) })
	}
}

// why says in words why the router is not proven.
func (v *watched) why() string {
	g := v.gw
	switch {
	case !g.hop.IsValid():
		return fmt.Sprintf("no default route on %s, and no gateway configured", v.Interface)
	case !g.resolved:
		return fmt.Sprintf("gateway %s is not found on %s", g.hop, v.Interface)
	case g.heard == 0:
		return fmt.Sprintf("gateway %s has never answered a ping", g.hop)
	case v.detour != (hardwareAddr{}):
		return fmt.Sprintf("gateway %s sends the VIP's answers to %s", g.hop, macText(v.detour))
	case g.silent > silentMost:
		return fmt.Sprintf("gateway %s answers nothing any more", g.hop)
	}
	return fmt.Sprintf("gateway %s answers this node, but not on the VIP", g.hop)
}
