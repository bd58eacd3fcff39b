package arp

import (
	"fmt"
	"net/netip"
	"time"
)

// RouterState says whether the router reaches a VIP here.
type RouterState uint8

// The states, in the words of status (design §8). Unknown: the gateway has never
// answered a ping, or there is none. Unproven: it answers, or did, but not to
// the VIP.
const (
	RouterUnknown RouterState = iota
	RouterUnproven
	RouterProven
)

func (s RouterState) String() string {
	return [...]string{"unknown", "unproven", "proven"}[min(s, RouterProven)]
}

// Proof is what a Watch tells of a VIP's router: a new state, the end of a
// round, or that it stayed unproven for Patience.
type Proof struct {
	VIP         netip.Addr
	State       RouterState
	At          time.Duration // boot clock
	Sent        time.Duration // RouterProven: when the ping that was answered was sent
	Changed     bool          // State is another than before
	First       bool          // RouterProven, for the first time since Hold
	Lost        bool          // RouterUnproven, and it was proven before
	Unreachable bool          // unproven for Patience now, told once until it is proven
	Gateway     netip.Addr
	Why         string // of what is not proven, in words
}

// Patience is how long a VIP may stay unproven until that is trouble.
const Patience = 10 * time.Second

// The pace of a proof: pings at once, then slower, and again every provePause
// for as long as it takes; in between the router is told again.
const (
	provePause = 400 * time.Millisecond
	askFirst   = 100 * time.Millisecond
	askLast    = 5 * time.Second
	missesMost = 5 // pings of a VIP that was proven, until it is no more

	seekFrom = 800 * time.Millisecond // the pause from which on the router's choice is looked for
)

var firstPauses = [...]time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}

// watched is one VIP.
type watched struct {
	Link
	gw    *gateway
	held  bool
	alone bool          // without a majority: it speaks for itself only where it is asked to (§4.6)
	since time.Duration // held
	state RouterState

	proving  bool // until the next answer
	first    bool // no answer yet since it is held
	tries    int  // pings of this round
	nextPing time.Duration
	nextAsk  time.Duration
	askPause time.Duration
	unproven time.Duration // since when; 0: it is not
	told     bool          // that it is unreachable
	detour   hardwareAddr  // who else brought an answer in this round
	sought   time.Duration // when everybody was last asked who has it; 0: never

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
	// Its own answers tell a router that does not know us from one that is gone.
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

// prove pings once more.
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

// urge tells the router again, each time after a longer pause: by broadcast, and
// by a question to it alone in the VIP's name, which even a table that takes no
// announcement learns from (measured).
func (v *watched) urge(w *Watch, now time.Duration) {
	if v.alone || v.tries == 0 || v.rival.turnAt != 0 { // nothing to hear yet; or a rival that speaks, which is not fought this way
		v.nextAsk = now + askFirst
		return
	}
	if !v.Silent {
		if v.gw.resolved && w.o.Announcer.may(v.VIP) && w.ask(v.gw, v.VIP, true, urgentFrames) {
			w.stats.Asked++
			v.nextPing = min(v.nextPing, now+firstPauses[0])
		}
		if v.askPause > askFirst && v.rival.healAt == 0 { // a rival would answer what all hear
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

// judge says what it means that there is no answer yet.
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

// calm ends the haste around a gateway once no proof waits for it.
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

// why the router is not proven, in words.
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
