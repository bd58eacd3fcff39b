// Package fence judges from outside what happens to a VIP whose agent is frozen, killed,
// starved or cannot write. The address may stay bound, since nothing removes it, but it
// must not answer.
package fence

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sipalive/control"
	"sipalive/platform/stalltest"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

const (
	patience = 30 * time.Second
	lease    = time.Second // the default
	// slack is how much longer than its lease a takeover may take on a machine that is
	// busy with other things. The actual time is printed.
	slack = 3 * lease / 4
)

// site is a cluster and its observers.
type site struct {
	*cluster.Cluster
	t         *testing.T
	arp       *lab.ARPObserver
	addresses *lab.AddressObserver
	phones    []*lab.SIPObserver
	watcher   *stalltest.Watcher
}

func start(t *testing.T, toml string) *site {
	t.Helper()
	lab.WatchStolen()
	c, err := cluster.Start(cluster.Options{Binary: binary, TOML: toml + "[timing]\nhold_down = \"0s\"\n"})
	must(t, err)
	s := &site{Cluster: c, t: t, watcher: stalltest.NewWatcher(t)}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range s.Nodes() {
				t.Logf("%s:\n%s", s.Node(i).Name, s.Agent(i).LastWords())
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s.arp, err = c.ObserveARP(5*time.Millisecond, c.VIPs...)
	must(t, err)
	s.addresses, err = c.ObserveAddresses()
	must(t, err)
	for _, v := range c.VIPs {
		phone, err := c.Phone().ObserveSIP(netip.AddrPortFrom(v, 5060), 0)
		must(t, err)
		s.phones = append(s.phones, phone)
	}
	s.rest()
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rest waits until every agent sees all nodes fit and each VIP at home.
func (s *site) rest() {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	for i := range s.Nodes() {
		must(s.t, s.WaitHeld(ctx, i, "pbx1", "pbx2", "pbx3"))
		for v := range s.VIPs {
			must(s.t, s.WaitHolder(ctx, i, v, s.Node(v).Name))
		}
	}
	for v := range s.VIPs {
		s.hears(v, s.Node(v).Name)
	}
}

// hears waits until the phone's answers for a VIP come from a node.
func (s *site) hears(vip int, node string) {
	s.t.Helper()
	must(s.t, s.hearsWithin(patience, vip, node))
}

// hearsWithin returns an error if no answer for a VIP comes from a node in that time.
func (s *site) hearsWithin(within time.Duration, vip int, node string) error {
	since := lab.Now()
	ctx, cancel := cluster.Deadline(within)
	defer cancel()
	return lab.WaitFor(ctx, fmt.Sprintf("%s answers for %s", node, cluster.VIPName(vip)), func() error {
		last, ok := s.phones[vip].Last()
		if !ok || last.Server != node || last.Sent < since {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	})
}

// status waits until a node's agent answers.
func (s *site) status(node int) (st control.Status) {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	must(s.t, lab.WaitFor(ctx, "a status", func() (err error) { st, err = s.Client(node).Status(ctx); return err }))
	return st
}

// served waits until another node than the first serves vip1, and returns how long after
// the fault the first such answer came.
func (s *site) served(fault time.Duration) time.Duration {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	must(s.t, lab.WaitFor(ctx, "vip1 served elsewhere", func() error {
		if last, _ := s.phones[0].Last(); last.Server == "pbx1" || last.Sent < fault {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	}))
	for _, p := range s.phones[0].Pings(fault, 0) {
		if p.RTT > 0 && p.Server != "pbx1" {
			return p.Sent - fault
		}
	}
	s.t.Fatal("no answer from another node")
	return 0
}

// oneHolder asserts that since a moment no two machines answered one question, and that
// the old holder never answered after another node had. If a VIP moved more than once,
// that is an error too. But if the machine stood still, leases may have ended because of
// that: then oneHolder only returns the error.
func (s *site) oneHolder(since time.Duration) (moved error) {
	s.t.Helper()
	for _, v := range s.arp.Violations() {
		if v.Asked >= since {
			s.t.Errorf("two holders: %v", v)
		}
	}
	for i := range s.VIPs {
		moved = errors.Join(moved, s.toAndFro(since, i))
		seen := map[string]bool{}
		last := ""
		for _, p := range s.phones[i].Pings(since, 0) {
			if p.RTT == 0 || p.Server == last {
				continue
			}
			if seen[p.Server] {
				s.t.Errorf("two holders: %s answered for %s at %v, after %s had", p.Server, cluster.VIPName(i), p.Sent, last)
			}
			seen[p.Server], last = true, p.Server
		}
	}
	if moved == nil {
		return nil
	}
	stood := s.stood(since, lab.Now())
	moved = fmt.Errorf("%w; the machine stood still for %v", moved, stood)
	if stood <= lease/4 {
		s.t.Error(moved)
		return nil
	}
	s.t.Log(moved)
	return moved
}

// toAndFro returns an error if a VIP had more than one new holder since a moment.
func (s *site) toAndFro(since time.Duration, vip int) error {
	holder, changes := "", 0
	tenures := s.arp.Tenures(s.VIPs[vip])
	for _, tenure := range tenures {
		if tenure.To >= since && tenure.Host != holder {
			holder = tenure.Host
			changes++
		}
	}
	if changes <= 2 {
		return nil
	}
	return fmt.Errorf("%s went to and fro: %v", cluster.VIPName(vip), tenures)
}

// programs lists the BPF programs attached to a node's eth0.
func (s *site) programs(node int) (names []string) {
	s.t.Helper()
	must(s.t, s.Node(node).Do(func() error {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			found, err := link.QueryPrograms(link.QueryOptions{Target: s.index(), Attach: at})
			if err != nil {
				return err
			}
			for _, p := range found.Programs {
				program, err := ebpf.NewProgramFromID(p.ID)
				if err != nil {
					return err
				}
				info, err := program.Info()
				_ = program.Close()
				if err != nil {
					return err
				}
				names = append(names, info.Name)
			}
		}
		return nil
	}))
	return names
}
