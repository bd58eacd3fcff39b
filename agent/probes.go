package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
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
	unready bool // this node's own checks say no
}

func newProbes(a *Agent) *probes {
	p := &probes{a: a, byNode: map[elect.Node][]*sipcheck.Prober{}, verdict: map[*sipcheck.Prober]elect.SIPState{},
		told: map[elect.Node]elect.SIPState{}}
	for _, n := range a.Config.Nodes {
		if !n.Holder {
			continue // a witness runs no PBX
		}
		for _, t := range a.Config.SIP.OnNode() {
			target := sipTarget(a.Config, t, n.Name, n.Address)
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
	opts := p.a.sipOptions()
	opts.Every = true
	opts.Deliver = func(r sipcheck.Result) { p.take(prober, sipState(r)) }
	prober = sipcheck.NewProber(t, opts)
	node := elect.Node(t.Node)
	p.probers = append(p.probers, prober)
	p.byNode[node] = append(p.byNode[node], prober)
}

// take turns a target's verdict into the node's, and tells a change.
func (p *probes) take(prober *sipcheck.Prober, v elect.SIPState) {
	p.update(elect.Node(prober.Target().Node), func() { p.verdict[prober] = v })
}

// setUnready takes the word of this node's own checks.
func (p *probes) setUnready(on bool) {
	p.update(elect.Node(p.a.Self.Name), func() { p.unready = on })
}

func (p *probes) update(node elect.Node, change func()) {
	p.mu.Lock()
	change()
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
	elect.SIPSilent: 4, elect.SIPUnready: 5, elect.SIPRefused: 6}

// stateOf is the worst of the node's targets: every one of them serves calls.
func (p *probes) stateOf(n elect.Node) elect.SIPState {
	worst := elect.SIPUp
	for _, prober := range p.byNode[n] {
		if s := p.verdict[prober]; badness[s] > badness[worst] {
			worst = s
		}
	}
	if p.unready && n == elect.Node(p.a.Self.Name) && badness[worst] < badness[elect.SIPUnready] {
		return elect.SIPUnready
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
	if no := p.a.checks.unfit(); len(no) > 0 {
		return errors.New("its own checks say no: " + strings.Join(no, "; "))
	}
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
	protocols, ports := p.watched()
	if len(ports) == 0 {
		<-ctx.Done()
		return nil
	}
	served := func(s platform.SocketDestroyed, prober *sipcheck.Prober) bool {
		t := prober.Target()
		return s.Served(protocolOf(t.Transport), t.Address)
	}
	w, err := platform.WatchSocketsDestroyed(ctx, protocols, ports, func(s platform.SocketDestroyed) bool {
		return slices.ContainsFunc(p.here(), func(prober *sipcheck.Prober) bool { return served(s, prober) })
	}, func(s platform.SocketDestroyed) {
		for _, prober := range p.here() {
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

// here are the probers of what listens on this machine: on the node, and on the
// VIPs it holds.
func (p *probes) here() []*sipcheck.Prober {
	return append(p.a.vipTargets.now(), p.byNode[elect.Node(p.a.Self.Name)]...)
}

// watched are the protocols and ports that a target of ours may listen on.
func (p *probes) watched() (protocols []uint8, ports []uint16) {
	if !p.a.Self.Holder {
		return nil, nil
	}
	for _, t := range p.a.Config.SIP.Targets {
		by, _ := sipcheck.ParseTransport(t.Transport)
		protocols, ports = append(protocols, protocolOf(by)), append(ports, t.Port)
	}
	slices.Sort(protocols)
	slices.Sort(ports)
	return slices.Compact(protocols), slices.Compact(ports)
}

func protocolOf(by sipcheck.Transport) uint8 {
	if by == sipcheck.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}
