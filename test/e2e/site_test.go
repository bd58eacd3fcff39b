package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// patience bounds every wait for something that must come. How soon it must come is
// asserted by what the observers saw.
const patience = 20 * time.Second

// calm makes nodes count as fit again at once. Otherwise scenarios that share a cluster
// would wait for hold_down, which doubles each time.
const calm = "[timing]\nhold_down = \"0s\"\n"

// site is a cluster and its observers.
type site struct {
	*cluster.Cluster
	arp       *lab.ARPObserver
	addresses *lab.AddressObserver
	phones    []*lab.SIPObserver    // one per VIP
	foreign   map[string]netip.Addr // on every node, an address that the agents must leave alone
	epochs    ledger
	ruined    bool            // a test of the checks broke it on purpose
	planted   map[string]bool // hosts to which the scenario itself gave a VIP
}

// start starts a cluster and waits until it is at rest. With the test it ends every agent
// by SIGTERM; then no VIP may be left anywhere.
func start(t *testing.T, o cluster.Options) *site {
	t.Helper()
	lab.WatchStolen()
	o.Binary = binary
	s := &site{foreign: map[string]netip.Addr{}, epochs: newLedger(), planted: map[string]bool{}}
	o.PBX = s.withForeign(o.PBX)
	c, err := cluster.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Cluster = c
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if s.addresses, err = c.ObserveAddresses(); err != nil {
		t.Fatal(err)
	}
	ipv4 := slices.DeleteFunc(slices.Clone(c.VIPs), netip.Addr.Is6) // for IPv6 VIPs the kernels' events must suffice
	if s.arp, err = c.ObserveARP(0, ipv4...); err != nil {
		t.Fatal(err)
	}
	for i, v := range c.VIPs {
		caller := c.Phone()
		if on := c.Node(len(c.Nodes()) - 1); on.Addr2.IsValid() && lab.OnManagement(c.VIP(i+1)) == v {
			caller = on
		}
		phone, err := caller.ObserveSIP(netip.AddrPortFrom(v, 5060), 0)
		if err != nil {
			t.Fatal(err)
		}
		s.phones = append(s.phones, phone)
	}
	t.Cleanup(func() { s.end(t) })
	return s
}

// withForeign gives every node an address that is not the agents', before its agent
// starts. It does so when the PBX is started, since that is each node's first process.
func (s *site) withForeign(pbx func(*lab.Host) (lab.Spec, bool)) func(*lab.Host) (lab.Spec, bool) {
	if pbx == nil {
		pbx = demoPBX
	}
	return func(h *lab.Host) (lab.Spec, bool) {
		if _, has := s.foreign[h.Name]; !has {
			ip := h.Addr.As4()
			ip[3] += 140
			s.foreign[h.Name] = netip.AddrFrom4(ip)
			if err := h.Bind(s.foreign[h.Name]); err != nil {
				panic(err) // an error of the test itself
			}
		}
		return pbx(h)
	}
}

func demoPBX(h *lab.Host) (lab.Spec, bool) {
	return lab.Spec{Name: "pbx-" + h.Name, Path: binary, Args: []string{"demo-pbx", h.Name}}, true
}

// moves says how often each VIP must get a new holder in a scene.
type moves []int

// scene brings the cluster to rest, plays the scene, and checks the invariants.
func (s *site) scene(t *testing.T, name string, want moves, play func(t *testing.T, at time.Duration)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				s.explain(t)
			}
		}()
		for plays := 1; ; plays++ {
			s.settle(t)
			at := lab.Now()
			clear(s.planted)
			play(t, at)
			if plays == 3 || t.Failed() || !s.starved(t, at, want) {
				s.check(t, at, want)
				return
			}
		}
	})
}

// starving is how much stolen time can make the nodes take a PBX for dead: nearly fall
// intervals and a timeout without an answer.
const starving = 600 * time.Millisecond

// starved reports whether a VIP moved too often while the host let the cores stand still.
// A PBX that got no core was silent, and to leave it was right. Such a scene is played
// again.
func (s *site) starved(t *testing.T, since time.Duration, want moves) bool {
	t.Helper()
	for v, addr := range s.VIPs {
		n, path := s.takeovers(t, addr, since)
		if n <= want[v] {
			continue
		}
		lost, err := lab.WatchStolen().Between(since, lab.Now())
		s.must(t, err)
		t.Logf("%s got a new holder %d times, want %d: %v; the host stole %v", cluster.VIPName(v), n, want[v], path, lost)
		return lost >= starving
	}
	return false
}

// settle heals every fault, starts every process that has ended, and brings every VIP
// home.
func (s *site) settle(t *testing.T) {
	t.Helper()
	if err := s.Heal(); err != nil {
		t.Fatal(err)
	}
	for i := range s.Nodes() {
		if p := s.PBX(i); p != nil && ended(p) {
			s.must(t, s.StartPBX(i))
		}
		if p := s.Agent(i); p != nil && ended(p) {
			s.must(t, s.StartAgent(i))
		}
	}
	await(t, "the cluster at rest", s.atRest)
	for v := range s.VIPs {
		// A cable that was plugged in again gives its node a carrier only after a moment.
		await(t, cluster.VIPName(v)+" home", func(ctx context.Context) error {
			h := s.holder(t, v)
			if h == s.home(v) {
				return nil
			}
			_, err := s.Client(0).Do(ctx, control.Command{Kind: control.Failback})
			return errors.Join(fmt.Errorf("it is at %q", h), err)
		})
		s.hears(t, v, s.home(v), lab.Now())
	}
	await(t, "the cluster at rest and home", s.atRest)
}

// await asks the agents until their answers are as a scene wants them. It pauses between
// two questions, so that asking does not keep the machine busy. It lets each question
// take as long as it needs, so that the last answer is a real one.
func await(t *testing.T, what string, good func(context.Context) error) {
	t.Helper()
	for end := lab.Now() + patience; ; {
		err := good(context.Background())
		if err == nil {
			return
		}
		if lab.Now() > end {
			t.Fatalf("wait for %s: not within %v: %v", what, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func ended(p *lab.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// home returns the node that the configuration prefers for a VIP: see cluster.Options.
func (s *site) home(vip int) string { return s.Node(vip % len(s.Nodes())).Name }

// atRest: every agent sees all nodes fit and every VIP held and verified.
func (s *site) atRest(ctx context.Context) error {
	for i := range s.Nodes() {
		st, err := s.Client(i).Status(ctx)
		if err != nil {
			return err
		}
		if why := unrest(st); why != "" {
			return fmt.Errorf("%s says: %s", st.Node, why)
		}
	}
	return nil
}

func unrest(st control.Status) string {
	for _, n := range st.Nodes {
		witness := n.SIP == "unknown" && n.Why == ""
		if !n.Alive || !n.Fit && !witness || n.HeldDown || n.Drained || n.ConfigDiffers {
			return fmt.Sprintf("%+v", n)
		}
	}
	for _, v := range st.VIPs {
		if v.State != "held" || !v.Verified {
			return fmt.Sprintf("%+v", v)
		}
	}
	if !st.Quorum || st.AllUnfit {
		return "no quorum, or nobody fit"
	}
	return ""
}

// explain logs what the agents and the address observer say about a failure.
func (s *site) explain(t *testing.T) {
	events, err := s.addresses.Events()
	for _, e := range events[max(0, len(events)-30):] {
		t.Logf("address: %v %s if %d %v bound %v", e.At, e.Host, e.Index, e.Addr, e.Bound)
	}
	t.Log("now", lab.Now(), "address observer:", err)
	for i := range s.Nodes() {
		if p := s.Agent(i); p != nil {
			t.Logf("%s:\n%s", p.Host.Name, p.LastWords())
		}
	}
}

func (s *site) must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// holder returns the host whose kernel has a VIP, "" if none has.
func (s *site) holder(t testing.TB, vip int) string {
	t.Helper()
	return strings.Join(s.bound(t, s.VIPs[vip]), "+")
}

// bound lists the hosts that have an address.
func (s *site) bound(t testing.TB, addr netip.Addr) (hosts []string) {
	t.Helper()
	intervals, err := s.addresses.Intervals(addr)
	s.must(t, err)
	for _, i := range intervals {
		if i.To == 0 && !slices.Contains(hosts, i.Host) {
			hosts = append(hosts, i.Host)
		}
	}
	return hosts
}

// hears waits until the phone's answers for a VIP come from a node.
func (s *site) hears(t *testing.T, vip int, node string, since time.Duration) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(t, lab.WaitFor(ctx, fmt.Sprintf("the phone hears %s at %s", node, cluster.VIPName(vip)), func() error {
		last, ok := s.phones[vip].Last()
		if !ok || last.Server != node || last.Sent < since {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	}))
}

// watch lets the observers go on. A scene asserts that nothing happens meanwhile, so the
// length counts.
func watch(long time.Duration) { time.Sleep(long) }

// saw returns what the phone saw of a VIP since a moment. It leaves out the newest
// questions: their answers may still be on their way.
func (s *site) saw(vip int, since time.Duration) lab.SIPReport {
	watch(50 * time.Millisecond)
	return s.phones[vip].Report(since, lab.Now()-30*time.Millisecond)
}

// silent asserts the longest time for which the phone heard nothing, and logs it. It
// excuses what the machine explains.
func (s *site) silent(t *testing.T, vip int, since, most time.Duration) {
	t.Helper()
	watch(50 * time.Millisecond)
	r, excused, err := lab.WatchStolen().Excuse(s.phones[vip], since, lab.Now()-30*time.Millisecond, most)
	s.must(t, err)
	t.Logf("%s: %v, excused %v", cluster.VIPName(vip), r, excused.Round(10*time.Microsecond))
	if r.Silence > most+excused {
		t.Errorf("%s: phone heard nothing for %v, want at most %v", cluster.VIPName(vip), r.Silence, most)
	}
}

// status waits until a node's status is as a scene wants it.
func (s *site) status(t *testing.T, node int, what string, good func(control.Status) bool) control.Status {
	t.Helper()
	var st control.Status
	await(t, what, func(ctx context.Context) (err error) {
		if st, err = s.Client(node).Status(ctx); err == nil && !good(st) {
			err = fmt.Errorf("%s says %+v", st.Node, st)
		}
		return err
	})
	return st
}

// node returns one node's entry in a status.
func node(st control.Status, name string) control.NodeStatus {
	for _, n := range st.Nodes {
		if n.Name == name {
			return n
		}
	}
	return control.NodeStatus{}
}
