package realinput

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
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

// swift takes recovered nodes back at once. What decides a takeover is as by default.
const swift = "[timing]\nhold_down = \"0s\"\n"

// site is a cluster and its observers.
type site struct {
	*cluster.Cluster
	arp       *lab.ARPObserver
	addresses *lab.AddressObserver
	phones    []*lab.SIPObserver // one per VIP
}

// start starts a cluster and waits until every agent sees it at rest and the phone hears
// every VIP.
func start(t *testing.T, o cluster.Options) *site {
	t.Helper()
	s := launch(t, o)
	s.rests(t)
	for i := range s.VIPs {
		s.hears(t, i, s.holder(t, i), 0)
	}
	return s
}

// launch starts a cluster and its observers. At the end of the test it asserts that no
// two hosts ever had one VIP.
func launch(t *testing.T, o cluster.Options) *site {
	t.Helper()
	o.Binary = binary
	if o.TOML == "" {
		o.TOML = swift
	}
	pbx := o.PBX
	if pbx == nil {
		pbx = pbxBy(func(h *lab.Host) lab.Spec {
			return lab.Spec{Name: "pbx", Path: binary, Args: []string{"demo-pbx", h.Name}}
		})
	}
	o.Agent = ahead
	o.PBX = func(h *lab.Host) (lab.Spec, bool) {
		spec, some := pbx(h)
		return ahead(spec), some
	}
	c, err := cluster.Start(o)
	must(t, err)
	s := &site{Cluster: c}
	t.Cleanup(func() {
		if t.Failed() {
			s.explain(t)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s.addresses, err = c.ObserveAddresses()
	must(t, err)
	s.arp, err = c.ObserveARP(0, c.VIPs...)
	must(t, err)
	lab.WatchStolen()
	for _, v := range c.VIPs {
		phone, err := c.Phone().ObserveSIP(netip.AddrPortFrom(v, 5060), 0)
		must(t, err)
		s.phones = append(s.phones, phone)
	}
	t.Cleanup(func() { s.oneHolder(t) })
	return s
}

// ahead runs a program at a priority above the other work on this machine: the tests
// judge what the input does to a cluster, not what other tests do to it.
func ahead(spec lab.Spec) lab.Spec {
	if spec.Name == "" {
		spec.Name = filepath.Base(spec.Path)
	}
	spec.Args = append([]string{"-n", "-15", spec.Path}, spec.Args...)
	spec.Path = "nice"
	return spec
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rests waits until every agent sees all nodes fit and every VIP held and verified.
func (s *site) rests(t *testing.T) {
	t.Helper()
	s.await(t, "the cluster at rest", func(ctx context.Context) error {
		for i := range s.Nodes() {
			st, err := s.Client(i).Status(ctx)
			if err != nil {
				return err
			}
			for _, n := range st.Nodes {
				if !n.Alive || !n.Fit {
					return fmt.Errorf("%s says %+v", st.Node, n)
				}
			}
			for _, v := range st.VIPs {
				if v.State != "held" || !v.Verified {
					return fmt.Errorf("%s says %+v", st.Node, v)
				}
			}
		}
		return nil
	})
}

func (s *site) await(t *testing.T, what string, cond func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	must(t, lab.WaitFor(ctx, what, func() error { return cond(ctx) }))
}

// awaitNode waits until a node's agent reports what is wanted about a node.
func (s *site) awaitNode(t *testing.T, at int, what, name string, good func(control.NodeStatus) bool) {
	t.Helper()
	s.await(t, what, func(ctx context.Context) error {
		st, err := s.Client(at).Status(ctx)
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if n.Name == name && !good(n) {
				return fmt.Errorf("%s says %+v", st.Node, n)
			}
		}
		return nil
	})
}

// holder returns the host whose kernel has a VIP.
func (s *site) holder(t *testing.T, vip int) string {
	t.Helper()
	intervals, err := s.addresses.Intervals(s.VIPs[vip])
	must(t, err)
	var hosts []string
	for _, i := range intervals {
		if i.To == 0 {
			hosts = append(hosts, i.Host)
		}
	}
	return strings.Join(hosts, "+")
}

// hears waits until the phone's answers for a VIP come from a node.
func (s *site) hears(t *testing.T, vip int, node string, since time.Duration) {
	t.Helper()
	s.await(t, fmt.Sprintf("the phone hears %s at %s", node, cluster.VIPName(vip)), func(context.Context) error {
		last, ok := s.phones[vip].Last()
		if !ok || last.Server != node || last.Sent < since {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	})
}

// watch lets the observers go on. A test asserts that nothing happens meanwhile, so the
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
	must(t, err)
	t.Logf("%s: %v, excused %v", cluster.VIPName(vip), r, excused.Round(10*time.Microsecond))
	if r.Silence > most+excused {
		t.Errorf("%s: phone heard nothing for %v, want at most %v", cluster.VIPName(vip), r.Silence, most)
	}
}

// disturbed is the silence that a machine of two busy cores may cause by itself.
const disturbed = 100 * time.Millisecond

// nobodyMoved asserts that since a moment no VIP was bound or unbound anywhere, and the
// phone went on hearing answers.
func (s *site) nobodyMoved(t *testing.T, since time.Duration) {
	t.Helper()
	s.stayed(t, since)
	for v := range s.VIPs {
		s.silent(t, v, since, disturbed)
	}
}

// stayed is nobodyMoved for tests in which no PBX can answer the phone.
func (s *site) stayed(t *testing.T, since time.Duration) {
	t.Helper()
	events, err := s.addresses.Events()
	must(t, err)
	for _, e := range events {
		if e.At >= since && slices.Contains(s.VIPs, e.Addr) {
			t.Errorf("moved: %v of %s, bound %v at %v, %v after the start", e.Addr, e.Host, e.Bound, e.At, e.At-since)
		}
	}
}

// moved asserts that a VIP was taken over exactly once since a moment.
func (s *site) moved(t *testing.T, vip int, since time.Duration, to string) {
	t.Helper()
	events, err := s.addresses.Events()
	must(t, err)
	var bound []string
	for _, e := range events {
		if e.At >= since && e.Addr == s.VIPs[vip] && e.Bound {
			bound = append(bound, e.Host)
		}
	}
	if !slices.Equal(bound, []string{to}) {
		t.Errorf("%s was taken by %v, want %s once", cluster.VIPName(vip), bound, to)
	}
}

// oneHolder: by the kernel's order of events, two hosts never have one VIP, unless an
// agent got no core to unbind it; and no two questions in a row have two answers. A
// single question with two answers is a broadcast whose copies a busy machine delivered
// apart.
func (s *site) oneHolder(t *testing.T) {
	t.Helper()
	overlaps, err := s.addresses.Overlaps(s.VIPs...)
	must(t, err)
	for _, o := range overlaps {
		must(t, lab.WatchStolen().Judge(t, o, true))
	}
	last := map[netip.Addr]time.Duration{}
	for _, v := range s.arp.Violations() {
		t.Logf("ARP: %v", v)
		if before, is := last[v.VIP]; is && v.Asked-before < 50*time.Millisecond {
			t.Errorf("two holders: two ARP questions in a row were answered twice, at %v and %v", before, v.Asked)
		}
		last[v.VIP] = v.Asked
	}
}

// move asks a node for a planned move.
func (s *site) move(t *testing.T, vip int, to string) {
	t.Helper()
	s.command(t, 0, "move", cluster.VIPName(vip), to)
}

// command runs the binary against a node's agent, as its administrator would.
func (s *site) command(t *testing.T, node int, args ...string) string {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, append(args, "--run-dir", s.RunDir(node))...).CombinedOutput()
	if err != nil {
		t.Fatalf("sipalive %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// counters returns a node's counters, as `status --json` shows them.
func (s *site) counters(t *testing.T, node int) map[string]uint64 {
	t.Helper()
	var st control.Status
	must(t, json.Unmarshal([]byte(s.command(t, node, "status", "--json")), &st))
	if len(st.Counters) == 0 {
		t.Fatal("status --json shows no counters")
	}
	return st.Counters
}

// takeover waits until a VIP's newest takeover at a node is complete.
func (s *site) takeover(t *testing.T, node, vip int) (found control.Event) {
	t.Helper()
	s.await(t, "a complete takeover in events", func(ctx context.Context) error {
		events, err := s.Client(node).Events(ctx, 1000)
		if err != nil {
			return err
		}
		found = control.Event{}
		for _, e := range events {
			if e.Kind == control.Takeover && !e.Told && e.VIP == cluster.VIPName(vip) {
				found = e
			}
		}
		if found.Outcome == "" {
			return fmt.Errorf("events of %s: %+v", s.Node(node).Name, found)
		}
		return nil
	})
	return found
}

// mark returns the takeover's mark that begins with this name.
func mark(t *testing.T, e control.Event, begin string) control.Mark {
	t.Helper()
	for _, m := range e.Timeline {
		if strings.HasPrefix(m.Mark, begin) {
			return m
		}
	}
	t.Fatalf("no %q in %+v", begin, e)
	return control.Mark{}
}

// explain logs the end of every agent's and PBX's output.
func (s *site) explain(t *testing.T) {
	for i := range s.Nodes() {
		for _, p := range []*lab.Process{s.Agent(i), s.PBX(i)} {
			if p != nil {
				t.Logf("%s:\n%s", p.Log, p.LastWords())
			}
		}
	}
}
