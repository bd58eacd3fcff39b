package agent

import (
	"context"
	"crypto/x509"
	"maps"
	"net/netip"
	"sync"
	"time"

	"sipalive/config"
	"sipalive/elect"
	"sipalive/platform"
	"sipalive/sipcheck"
)

// vipTargets probes the listeners that are configured on a VIP while this node holds the
// VIP. Their verdicts continue the VIP's verification. They do not make the node unfit.
// They move that VIP alone, and only if it has answered before and another fit node has
// not failed it (§5.5).
type vipTargets struct {
	a       *Agent
	telling sync.Mutex // keeps reports in the order of verdicts; the loop never takes it
	mu      sync.Mutex
	ctx     context.Context // nil: not running
	held    map[elect.VIPID]*vipWatch
	probers sync.WaitGroup
}

// vipWatch is what is probed on one VIP that this node holds. It probes nothing if the
// file has no target on the VIP, but a reload may add one.
type vipWatch struct {
	lease   *lease
	epoch   elect.Epoch
	cancel  context.CancelFunc
	probers []*sipcheck.Prober
	verdict map[*sipcheck.Prober]sipcheck.Verdict
	told    sipcheck.Verdict // what was told: Up or another verdict; Unknown: nothing yet
}

func newVIPTargets(a *Agent) *vipTargets {
	return &vipTargets{a: a, held: map[elect.VIPID]*vipWatch{}}
}

// run starts with the leases that an earlier agent held. All probes end with ctx.
func (v *vipTargets) run(ctx context.Context) error {
	v.mu.Lock()
	v.ctx = ctx
	v.mu.Unlock()
	for _, h := range v.a.Adopted {
		if l := v.a.names().byID[h.VIP]; l != nil {
			v.start(l, h.Epoch)
		}
	}
	<-ctx.Done()
	v.mu.Lock()
	v.ctx = nil
	v.mu.Unlock()
	v.probers.Wait()
	return nil
}

// start starts the probes on a VIP, once the takeover's own verification has ended.
func (v *vipTargets) start(l *lease, e elect.Epoch) { v.startAs(l, e, sipcheck.Unknown) }

func (v *vipTargets) startAs(l *lease, e elect.Epoch, told sipcheck.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx == nil || l.vip == nil {
		return
	}
	v.end(l.id)
	ctx, cancel := context.WithCancel(v.ctx)
	w := &vipWatch{lease: l, epoch: e, told: told, cancel: cancel, verdict: map[*sipcheck.Prober]sipcheck.Verdict{}}
	for _, t := range v.a.Config().SIP.OnVIP(l.name) {
		w.probers = append(w.probers, v.prober(w, t))
	}
	v.held[l.id] = w
	for _, p := range w.probers {
		v.probers.Go(func() { _ = p.Run(ctx) }) // its target has an address, so Run only ends with ctx
	}
}

func (v *vipTargets) prober(w *vipWatch, t config.Target) *sipcheck.Prober {
	target := sipTarget(v.a.Config(), t, v.a.Self.Name, w.lease.address)
	target.Interval = t.SelfInterval
	var p *sipcheck.Prober
	opts := v.a.sipOptions(w.lease.address)
	opts.Every, opts.Pardon = true, v.a.hasPaused
	opts.Deliver = func(r sipcheck.Result) { v.hear(w, p, r.Verdict) }
	p = sipcheck.NewProber(target, opts)
	return p
}

// reconfigure starts again with the targets of another configuration. What was told before
// stands until the new targets say something else, or until no target is left.
func (v *vipTargets) reconfigure() {
	v.mu.Lock()
	before := maps.Clone(v.held)
	v.mu.Unlock()
	for id, w := range before {
		v.stop(id)
		l := v.a.names().byID[id]
		switch {
		case l == nil || l.left:
		case len(v.a.Config().SIP.OnVIP(l.name)) > 0:
			v.startAs(l, w.epoch, w.told)
		default:
			v.start(l, w.epoch)
			if len(w.probers) > 0 {
				go v.tell(elect.Verified{VIP: id, Epoch: w.epoch, Skipped: true})
			}
		}
	}
}

// tell tells a result after what is on its way. The loop calls it in a goroutine and does
// not wait.
func (v *vipTargets) tell(e elect.Verified) {
	v.telling.Lock()
	defer v.telling.Unlock()
	v.a.report(e)
}

// stop ends the probes on a VIP that this node lets go.
func (v *vipTargets) stop(id elect.VIPID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.end(id)
}

func (v *vipTargets) end(id elect.VIPID) {
	if w := v.held[id]; w != nil {
		w.cancel()
		delete(v.held, id)
	}
}

// hear tells a change of the verdict: Up if the VIP answers at all of its targets.
func (v *vipTargets) hear(w *vipWatch, p *sipcheck.Prober, verdict sipcheck.Verdict) {
	v.telling.Lock()
	defer v.telling.Unlock()
	v.mu.Lock()
	w.verdict[p] = verdict
	now := sipcheck.Up
	for _, p := range w.probers {
		if w.verdict[p] == sipcheck.Unknown {
			now = sipcheck.Unknown
		} else if w.verdict[p] != sipcheck.Up {
			now = w.verdict[p]
			break
		}
	}
	tell := now != sipcheck.Unknown && now != w.told && v.held[w.lease.id] == w
	if tell {
		w.told = now
	}
	v.mu.Unlock()
	if tell {
		v.a.report(elect.Verified{VIP: w.lease.id, Epoch: w.epoch, OK: now == sipcheck.Up, Standing: true})
	}
}

// now returns the probers of all VIPs held here.
func (v *vipTargets) now() (all []*sipcheck.Prober) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, w := range v.held {
		all = append(all, w.probers...)
	}
	return all
}

// of returns the probers of one VIP.
func (v *vipTargets) of(id elect.VIPID) []*sipcheck.Prober {
	v.mu.Lock()
	defer v.mu.Unlock()
	if w := v.held[id]; w != nil {
		return w.probers
	}
	return nil
}

// sipTarget returns a configured target at one address.
func sipTarget(c *config.Config, t config.Target, node string, at netip.Addr) sipcheck.Target {
	by, _ := sipcheck.ParseTransport(t.Transport) // config allows no other word
	return sipcheck.Target{
		Node: node, Name: t.Name, Address: netip.AddrPortFrom(at, t.Port), Transport: by, Interval: t.PeerInterval,
		Timeout: t.Timeout, Fall: t.Fall, Rise: t.Rise, UnhealthyCodes: t.UnhealthyCodes, UserAgent: c.SIP.UserAgent,
	}
}

// sipOptions returns the options that every prober of a VIP shares.
func (a *Agent) sipOptions(vip netip.Addr) sipcheck.Options {
	return sipcheck.Options{Local: LocalFor(a.Self, vip), Security: a.security(), Grid: a.grid.last, Alarm: a.probeAlarm}
}

// probeAlarm makes one of the agent's alarms usable by probers, which use time.Time.
func (a *Agent) probeAlarm(ring func()) sipcheck.Alarm {
	return probeAlarm{a.Alarms.New(ring)}
}

type probeAlarm struct{ *platform.Alarm }

func (p probeAlarm) Set(at time.Time) {
	in := time.Until(at)
	p.Alarm.Set(platform.BootNow() + int64(in))
}

func (a *Agent) security() sipcheck.Security {
	s := a.inForce.Load()
	return securityOf(s.config, s.roots)
}

func securityOf(c *config.Config, roots *x509.CertPool) sipcheck.Security {
	return sipcheck.Security{Insecure: !c.SIP.TLSVerify, Roots: roots}
}

func sameSecurity(a, b sipcheck.Security) bool {
	return a.Insecure == b.Insecure && (a.Roots == b.Roots || a.Roots != nil && b.Roots != nil && a.Roots.Equal(b.Roots))
}
