package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"sipalive/elect"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// probes asks every node's PBX whether it answers, this node's own fast and
// the others' slower, and makes one verdict per node of several targets.
type probes struct {
	a       *Agent
	probers []*sipcheck.Prober
	byNode  map[elect.Node][]*sipcheck.Prober
	mu      sync.Mutex
	verdict map[*sipcheck.Prober]elect.SIPState
	told    map[elect.Node]elect.SIPState
}

func newProbes(a *Agent) *probes {
	p := &probes{a: a, byNode: map[elect.Node][]*sipcheck.Prober{}, verdict: map[*sipcheck.Prober]elect.SIPState{},
		told: map[elect.Node]elect.SIPState{}}
	for _, n := range a.Config.Nodes {
		if !n.Holder {
			continue // a witness runs no PBX
		}
		for _, t := range a.Config.SIP.Targets {
			target := sipcheck.Target{
				Node: n.Name, Name: t.Name, Address: netip.AddrPortFrom(n.Address, t.Port), Interval: t.PeerInterval,
				Timeout: t.Timeout, Fall: t.Fall, Rise: t.Rise, UnhealthyCodes: t.UnhealthyCodes, UserAgent: a.Config.SIP.UserAgent,
			}
			if n.Name == a.Self.Name {
				target.Interval = t.SelfInterval
			}
			p.add(target)
		}
	}
	return p
}

func (p *probes) add(t sipcheck.Target) {
	var prober *sipcheck.Prober
	prober = sipcheck.NewProber(t, sipcheck.Options{Local: p.a.Self.Address, Every: true, Deliver: func(r sipcheck.Result) {
		p.take(prober, sipState(r))
	}})
	node := elect.Node(t.Node)
	p.probers = append(p.probers, prober)
	p.byNode[node] = append(p.byNode[node], prober)
}

// take turns a target's verdict into the node's, and tells a change.
func (p *probes) take(prober *sipcheck.Prober, v elect.SIPState) {
	node := elect.Node(prober.Target().Node)
	p.mu.Lock()
	p.verdict[prober] = v
	state := p.stateOf(node)
	changed := p.told[node] != state
	p.told[node] = state
	p.mu.Unlock()
	if changed {
		p.a.report(elect.Health{Node: node, SIP: state})
	}
}

// badness orders verdicts; what is not known yet is worse than what is doubted.
var badness = map[elect.SIPState]int{elect.SIPUp: 0, elect.SIPSuspect: 1, elect.SIPUnknown: 2, elect.SIPRising: 3,
	elect.SIPSilent: 4, elect.SIPRefused: 5}

// stateOf is the worst of the node's targets: every one of them serves calls.
func (p *probes) stateOf(n elect.Node) elect.SIPState {
	worst := elect.SIPUp
	for _, prober := range p.byNode[n] {
		if s := p.verdict[prober]; badness[s] > badness[worst] {
			worst = s
		}
	}
	return worst
}

// sipState adds to the verdict how the last probe ended.
func sipState(r sipcheck.Result) elect.SIPState {
	missed := r.Misses > 0
	switch {
	case r.Verdict == sipcheck.Unknown:
		return elect.SIPUnknown
	case r.Verdict == sipcheck.Up && missed:
		return elect.SIPSuspect
	case r.Verdict == sipcheck.Up:
		return elect.SIPUp
	case !missed:
		return elect.SIPRising
	case r.Verdict == sipcheck.Refused:
		return elect.SIPRefused
	}
	return elect.SIPSilent
}

func (p *probes) probeNow(n elect.Node) {
	for _, prober := range p.byNode[n] {
		prober.ProbeNow()
	}
}

// fresh asks this node's own PBX once more, now: every target has to answer
// with a code that is not listed as unhealthy.
func (p *probes) fresh(ctx context.Context) error {
	for _, prober := range p.byNode[elect.Node(p.a.Self.Name)] {
		answer, err := prober.Probe(ctx)
		if err != nil {
			return err
		}
		if answer.Listed {
			return errors.New("its PBX answered " + answer.Phrase)
		}
	}
	return nil
}

// watchSockets lets the kernel's notice that a SIP server's socket died trigger
// a probe at once. Where the kernel cannot say so, the interval has to do.
func (p *probes) watchSockets(ctx context.Context) error {
	own := p.byNode[elect.Node(p.a.Self.Name)]
	if len(own) == 0 {
		<-ctx.Done()
		return nil
	}
	var ports []uint16
	for _, prober := range own {
		ports = append(ports, prober.Target().Address.Port())
	}
	served := func(s platform.SocketDestroyed, prober *sipcheck.Prober) bool {
		return s.Served(unix.IPPROTO_UDP, prober.Target().Address)
	}
	w, err := platform.WatchSocketsDestroyed(ctx, ports, func(s platform.SocketDestroyed) bool {
		for _, prober := range own {
			if served(s, prober) {
				return true
			}
		}
		return false
	}, func(s platform.SocketDestroyed) {
		for _, prober := range own {
			if served(s, prober) {
				prober.ProbeNow()
			}
		}
	})
	if err != nil {
		p.a.recorder.warn("watch for dying sockets", err)
		<-ctx.Done()
		return nil
	}
	defer w.Close()
	select {
	case <-ctx.Done():
	case <-w.Done():
		if err := w.Err(); err != nil {
			p.a.recorder.warn("watch for dying sockets", err)
		}
		<-ctx.Done()
	}
	return nil
}
