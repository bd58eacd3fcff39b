package agent

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// probes asks every node's PBX whether it answers, this node's own fast and
// the others' slower, and makes one verdict per node of several targets.
type probes struct {
	a      *Agent
	change chan []probe  // by a reload, to run
	moved  chan struct{} // the own targets may have changed: watch their sockets

	mu      sync.Mutex
	probes  []probe
	byNode  map[elect.Node][]*sipcheck.Prober
	verdict map[*sipcheck.Prober]elect.SIPState
	told    map[elect.Node]elect.SIPState
}

// probe is one prober and what it was made for.
type probe struct {
	*sipcheck.Prober
	target sipcheck.Target
}

func newProbes(a *Agent) *probes {
	p := &probes{a: a, change: make(chan []probe, 1), moved: make(chan struct{}, 1),
		verdict: map[*sipcheck.Prober]elect.SIPState{}, told: map[elect.Node]elect.SIPState{}}
	p.set(p.wanted(a.Config()))
	return p
}

// wanted are the probers of a configuration, as far as they are the same those
// that there are.
func (p *probes) wanted(c *config.Config) (probes []probe) {
	for _, t := range targets(c, p.a.Self.Name) {
		at := slices.IndexFunc(p.probes, func(old probe) bool { return reflect.DeepEqual(old.target, t) })
		if at >= 0 {
			probes = append(probes, p.probes[at])
		} else {
			probes = append(probes, p.make(t))
		}
	}
	return probes
}

// targets are every node's SIP servers.
func targets(c *config.Config, self string) (out []sipcheck.Target) {
	for _, n := range c.Nodes {
		if !n.Holder {
			continue // a witness runs no PBX
		}
		for _, t := range c.SIP.Targets {
			target := sipcheck.Target{
				Node: n.Name, Name: t.Name, Address: netip.AddrPortFrom(n.Address, t.Port), Interval: t.PeerInterval,
				Timeout: t.Timeout, Fall: t.Fall, Rise: t.Rise, UnhealthyCodes: t.UnhealthyCodes, UserAgent: c.SIP.UserAgent,
			}
			if n.Name == self {
				target.Interval = t.SelfInterval
			}
			out = append(out, target)
		}
	}
	return out
}

func (p *probes) make(t sipcheck.Target) probe {
	var prober *sipcheck.Prober
	prober = sipcheck.NewProber(t, sipcheck.Options{Local: p.a.Self.Address, Every: true, Deliver: func(r sipcheck.Result) {
		p.verdictOf(prober, sipState(r))
	}})
	return probe{prober, t}
}

// set puts probers in place. One that replaces another of the same server
// begins with that one's verdict: asking more often is no news of the PBX.
func (p *probes) set(now []probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, verdict, told := p.probes, map[*sipcheck.Prober]elect.SIPState{}, map[elect.Node]elect.SIPState{}
	p.probes, p.byNode = now, map[elect.Node][]*sipcheck.Prober{}
	for _, n := range now {
		node := elect.Node(n.target.Node)
		p.byNode[node] = append(p.byNode[node], n.Prober)
		told[node] = p.told[node]
		if told[node] != elect.SIPUnknown {
			verdict[n.Prober] = elect.SIPUp // a server new to the file, until it is known
		}
		for _, old := range before {
			if old.target.Node == n.target.Node && old.target.Address == n.target.Address {
				verdict[n.Prober] = p.verdict[old.Prober]
			}
		}
	}
	p.verdict, p.told = verdict, told
}

func (p *probes) all() []probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probes
}

func (p *probes) of(n elect.Node) []*sipcheck.Prober {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byNode[n]
}

// take changes the probers to those of a new configuration.
func (p *probes) take(c *config.Config) {
	now := p.wanted(c)
	p.set(now)
	select { // one that run has not seen yet is out of date
	case <-p.change:
	default:
	}
	p.change <- now
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// run keeps the probers running that there should be.
func (p *probes) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	running := map[*sipcheck.Prober]context.CancelFunc{}
	for now := p.all(); ; {
		for prober, stop := range running {
			if !slices.ContainsFunc(now, func(n probe) bool { return n.Prober == prober }) {
				stop()
				delete(running, prober)
			}
		}
		for _, n := range now {
			if running[n.Prober] != nil {
				continue
			}
			c, stop := context.WithCancel(ctx)
			running[n.Prober] = stop
			wg.Go(func() {
				if err := n.Run(c); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case now = <-p.change:
		}
	}
}

// verdictOf turns a target's verdict into the node's, and tells a change. A
// prober that has not made up its mind yet changes nothing that is known.
func (p *probes) verdictOf(prober *sipcheck.Prober, v elect.SIPState) {
	node := elect.Node(prober.Target().Node)
	p.mu.Lock()
	if !slices.Contains(p.byNode[node], prober) || v == elect.SIPUnknown && p.verdict[prober] != v {
		p.mu.Unlock()
		return // or it has been replaced
	}
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
	for _, prober := range p.of(n) {
		prober.ProbeNow()
	}
}

// fresh asks this node's own PBX once more, now: every target has to answer
// with a code that is not listed as unhealthy.
func (p *probes) fresh(ctx context.Context) error {
	for _, prober := range p.of(elect.Node(p.a.Self.Name)) {
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
	for ctx.Err() == nil {
		p.watchOwn(ctx, p.of(elect.Node(p.a.Self.Name)))
	}
	return nil
}

// watchOwn watches until a reload.
func (p *probes) watchOwn(ctx context.Context, own []*sipcheck.Prober) {
	again := func() {
		select {
		case <-ctx.Done():
		case <-p.moved:
		}
	}
	if len(own) == 0 {
		again()
		return
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
		again()
		return
	}
	defer w.Close()
	select {
	case <-ctx.Done():
	case <-p.moved:
	case <-w.Done():
		if err := w.Err(); err != nil {
			p.a.recorder.warn("watch for dying sockets", err)
		}
		again()
	}
}
