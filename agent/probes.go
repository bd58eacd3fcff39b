package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/sipcheck"
)

// probes asks every node's PBX whether it answers: this node's own fast, the others'
// slower. It makes one verdict per node from the verdicts of several targets.
type probes struct {
	a      *Agent
	change chan []probe // from a reload, for run

	telling sync.Mutex // keeps reports in the order of verdicts; the loop never takes it

	mu      sync.Mutex
	probes  []probe
	byNode  map[elect.Node][]*sipcheck.Prober
	verdict map[*sipcheck.Prober]verdict
	told    map[elect.Node]elect.SIPState
	unready bool // this node's own checks say no
}

// verdict is the verdict of one target.
type verdict struct {
	state elect.SIPState
	since elect.Instant // since and last: as in elect.Health
	last  elect.Instant
}

// probe is one prober and what it was made from.
type probe struct {
	*sipcheck.Prober
	target   sipcheck.Target
	security sipcheck.Security
}

func newProbes(a *Agent) *probes {
	p := &probes{a: a, change: make(chan []probe, 1),
		verdict: map[*sipcheck.Prober]verdict{}, told: map[elect.Node]elect.SIPState{}}
	p.set(p.wanted(a.Config(), a.Roots))
	return p
}

// wanted returns the probers of a configuration. It reuses existing probers that would be
// the same.
func (p *probes) wanted(c *config.Config, roots *x509.CertPool) (probes []probe) {
	security := securityOf(c, roots)
	for _, t := range targets(c, p.a.Self.Name) {
		at := slices.IndexFunc(p.probes, func(old probe) bool {
			return reflect.DeepEqual(old.target, t) && (t.Transport != sipcheck.TLS || sameSecurity(old.security, security))
		})
		if at >= 0 {
			probes = append(probes, p.probes[at])
		} else {
			probes = append(probes, p.make(t, security))
		}
	}
	return probes
}

// targets returns every node's SIP servers.
func targets(c *config.Config, self string) (out []sipcheck.Target) {
	for _, n := range c.Nodes {
		if !n.Holder {
			continue // a witness runs no PBX
		}
		for _, t := range c.SIP.OnNode() {
			target := sipTarget(c, t, n.Name, n.Address)
			if n.Name == self {
				target.Interval = t.SelfInterval
			}
			out = append(out, target)
		}
	}
	return out
}

func (p *probes) make(t sipcheck.Target, s sipcheck.Security) probe {
	var prober *sipcheck.Prober
	own := t.Node == p.a.Self.Name
	opts := sipcheck.Options{Local: p.a.Self.Address, Security: s, Every: true, Grid: p.a.grid.last, Alarm: p.a.probeAlarm, Deliver: func(r sipcheck.Result) {
		at := func(t time.Time) elect.Instant { return p.a.Now().Add(-time.Since(t)) }
		p.verdictOf(prober, verdict{sipState(r, own), at(r.Since), at(r.Started)})
	}}
	if own {
		opts.Pardon = p.a.hasPaused
	}
	if own && t.Timeout > time.Duration(t.Fall-1)*t.Interval {
		// The others would be told of the first silence, and would finish waiting for
		// their own answers, later than this prober takes to decide.
		opts.Hesitates = func(started time.Time) {
			at := p.a.Now().Add(-time.Since(started))
			p.verdictOf(prober, verdict{elect.SIPSuspect, at, at})
		}
	}
	prober = sipcheck.NewProber(t, opts)
	return probe{prober, t, s}
}

// set puts probers in place. A prober that replaces another of the same server begins
// with that one's verdict: a new interval is no news about the PBX.
func (p *probes) set(now []probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, verdicts, told := p.probes, map[*sipcheck.Prober]verdict{}, map[elect.Node]elect.SIPState{}
	p.probes, p.byNode = now, map[elect.Node][]*sipcheck.Prober{}
	for _, n := range now {
		node := elect.Node(n.target.Node)
		p.byNode[node] = append(p.byNode[node], n.Prober)
		told[node] = p.told[node]
		if told[node] != elect.SIPUnknown {
			verdicts[n.Prober] = verdict{state: elect.SIPUp} // for a server that is new in the file, until its state is known
		}
		for _, old := range before {
			if old.target.Node == n.target.Node && old.target.Address == n.target.Address && old.target.Transport == n.target.Transport {
				verdicts[n.Prober] = p.verdict[old.Prober]
			}
		}
	}
	p.verdict, p.told = verdicts, told
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

// reconfigure changes to the probers of a new configuration.
func (p *probes) reconfigure(c *config.Config, roots *x509.CertPool) {
	now := p.wanted(c, roots)
	p.set(now)
	select { // a list that run has not read yet is out of date
	case <-p.change:
	default:
	}
	p.change <- now
}

// run keeps the wanted probers running.
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

// verdictOf turns a target's verdict into the node's, and tells it where it has to be
// told. A prober that has no verdict yet changes nothing that is known.
func (p *probes) verdictOf(prober *sipcheck.Prober, v verdict) {
	node := elect.Node(prober.Target().Node)
	p.mu.Lock()
	if !slices.Contains(p.byNode[node], prober) || v.state == elect.SIPUnknown && p.verdict[prober].state != v.state {
		p.mu.Unlock()
		return // or the prober has been replaced
	}
	p.verdict[prober] = v
	p.mu.Unlock()
	p.tell(node)
}

// setUnready takes the verdict of this node's own checks.
func (p *probes) setUnready(on bool) {
	p.mu.Lock()
	p.unready = on
	p.mu.Unlock()
	p.tell(elect.Node(p.a.Self.Name))
}

// tell tells a node's verdict if it has changed. It also tells every verdict that speaks
// against another node, because such a verdict has to be confirmed (elect.Health).
func (p *probes) tell(node elect.Node) {
	p.telling.Lock()
	defer p.telling.Unlock()
	p.mu.Lock()
	v := p.stateOf(node)
	tell := p.told[node] != v.state || v.state.Doubted() && node != elect.Node(p.a.Self.Name)
	p.told[node] = v.state
	p.mu.Unlock()
	if tell {
		p.a.report(elect.Health{Node: node, SIP: v.state, Since: v.since, Last: v.last})
	}
}

// badness orders verdicts. Unknown is worse than suspect.
var badness = map[elect.SIPState]int{elect.SIPUp: 0, elect.SIPSuspect: 1, elect.SIPUnknown: 2, elect.SIPRising: 3,
	elect.SIPSilent: 4, elect.SIPUnready: 5, elect.SIPRefused: 6}

// stateOf returns the worst verdict of the node's targets, because every one of them
// serves calls. A witness has no targets, so nothing is known of it. Of verdicts that are
// equally bad, the one asked last counts.
func (p *probes) stateOf(n elect.Node) verdict {
	worst := verdict{state: elect.SIPUp}
	if c := p.a.Config().Node(string(n)); c != nil && !c.Holder {
		worst.state = elect.SIPUnknown
	}
	for _, prober := range p.byNode[n] {
		v := p.verdict[prober]
		if worse := badness[v.state] - badness[worst.state]; worse > 0 || worse == 0 && v.since > worst.since {
			worst = v
		}
	}
	if p.unready && n == elect.Node(p.a.Self.Name) && badness[worst.state] < badness[elect.SIPUnready] {
		worst.state = elect.SIPUnready
	}
	return worst
}

// sipState adds to the verdict how the last probe ended. A code that is listed as
// unhealthy is what a PBX says of itself, and its own node gets it too. So another node's
// verdict on it can only agree with the own node's. That way a pause that the own node
// made, of which the others know nothing, makes nobody unfit.
func sipState(r sipcheck.Result, own bool) elect.SIPState {
	missed := r.Misses > 0
	switch {
	case r.Verdict == sipcheck.Unhealthy && missed && !own:
		return elect.SIPSuspect
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

// fresh probes this node's own PBX once more, now. Every target has to answer with a code
// that is not listed as unhealthy.
func (p *probes) fresh(ctx context.Context) error {
	if no := p.a.checks.unfit(); len(no) > 0 {
		return errors.New("its own checks say no: " + strings.Join(no, "; "))
	}
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

// here returns the probers of everything that listens on this machine: on the node's own
// address, and on the VIPs it holds.
func (p *probes) here() []*sipcheck.Prober {
	return append(p.a.vipTargets.now(), p.of(elect.Node(p.a.Self.Name))...)
}

// watched returns the protocols and ports on which a target of this node may listen.
func (p *probes) watched() (protocols []uint8, ports []uint16) {
	if !p.a.Self.Holder {
		return nil, nil
	}
	for _, t := range p.a.Config().SIP.Targets {
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
