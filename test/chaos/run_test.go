package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// run is a cluster under chaos, its observers, and the log.
type run struct {
	*cluster.Cluster
	start     time.Duration
	addresses *lab.AddressObserver
	arp       *lab.ARPObserver
	phones    []*lab.SIPObserver
	foreign   map[string]netip.Addr
	stopPolls context.CancelFunc
	work      sync.WaitGroup // polls and commands

	mu     sync.Mutex
	claims [vips][]claim
	absent []absence
	away   [nodes]time.Duration // since when the agent is away; 0: it is not
	pids   [nodes]int
	log    []string
}

// begin starts a cluster, waits until every VIP is held, and then starts the observers.
func begin(t *testing.T, toml string) *run {
	t.Helper()
	r := &run{foreign: map[string]netip.Addr{}}
	pbx := func(h *lab.Host) (lab.Spec, bool) {
		if _, has := r.foreign[h.Name]; !has { // before the node's first process
			ip := h.Addr.As4()
			ip[3] += 140
			r.foreign[h.Name] = netip.AddrFrom4(ip)
			if err := h.Bind(r.foreign[h.Name]); err != nil {
				t.Fatal(err)
			}
		}
		return lab.Spec{Name: "pbx-" + h.Name, Path: binary, Args: []string{"demo-pbx", h.Name}}, true
	}
	c, err := cluster.Start(cluster.Options{Binary: binary, PBX: pbx, VIPs: vips, TOML: toml})
	must(t, err)
	r.Cluster = c
	t.Cleanup(func() { must(t, c.Close()) })
	r.addresses, err = c.ObserveAddresses()
	must(t, err)
	ctx, cancel := cluster.Deadline(healBound)
	defer cancel()
	must(t, c.WaitHeld(ctx, 0, "pbx1", "pbx2", "pbx3"))
	r.start = lab.Now()
	r.arp, err = c.ObserveARP(0, c.VIPs...)
	must(t, err)
	for _, v := range c.VIPs {
		phone, err := c.Phone().ObserveSIP(netip.AddrPortFrom(v, 5060), 2*time.Millisecond)
		must(t, err)
		r.phones = append(r.phones, phone)
	}
	polls, stop := context.WithCancel(context.Background())
	r.stopPolls = stop
	t.Cleanup(func() { stop(); r.work.Wait() })
	for i := range nodes {
		r.pids[i] = c.Agent(i).Pid
		r.work.Go(func() { r.poll(polls, i) })
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// note adds a line to the log.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf("%9.3f  ", (lab.Now()-r.start).Seconds())+fmt.Sprintf(format, args...))
}

// poll asks a node every 20 ms what it holds. An answer is used only if the process is
// the same before and after: otherwise it is unknown which process gave the answer.
func (r *run) poll(ctx context.Context, node int) {
	beat := time.NewTicker(20 * time.Millisecond)
	defer beat.Stop()
	for ctx.Err() == nil {
		pid := r.pid(node)
		called := lab.Now()
		st, err := r.Client(node).Status(ctx)
		replied := lab.Now()
		if err == nil && pid == r.pid(node) {
			r.mu.Lock()
			for v, s := range st.VIPs {
				c := claim{host(node), pid, s.Holder == st.Node, s.Epoch, called, replied}
				list := r.claims[v]
				r.claims[v] = append(list, c)
			}
			r.mu.Unlock()
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
		}
	}
}

func (r *run) pid(node int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pids[node]
}

// leave and back record when a node's agent did not run.
func (r *run) leave(node int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away[node] = lab.Now()
}

func (r *run) back(node int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away[node] != 0 {
		r.absent = append(r.absent, absence{host(node), r.away[node], lab.Now()})
		r.away[node] = 0
	}
}

// play plays a schedule.
func (r *run) play(t *testing.T, list []fault, long time.Duration) {
	t.Helper()
	for _, e := range edges(list) {
		time.Sleep(r.start + e.at - lab.Now())
		word := "begins"
		apply := r.strike
		if e.over {
			word, apply = "ends  ", r.mend
		}
		r.note("%s %v", word, e.fault)
		if err := apply(e.fault); err != nil {
			t.Fatalf("%s %v: %v", word, e.fault, err)
		}
	}
	time.Sleep(r.start + long - lab.Now())
}

func (r *run) end(i int) *lab.Host {
	if i < 0 {
		return r.Router()
	}
	return r.Node(i)
}

func (r *run) strike(f fault) error {
	switch f.Kind {
	case cut:
		return r.Cut(r.Node(f.A))
	case cable:
		return r.PullCable(r.Node(f.A))
	case sever:
		return r.Sever(r.Node(f.A), r.end(f.B))
	case oneWay:
		return r.OneWay(r.Node(f.A), r.end(f.B))
	case loss:
		return r.Loss(f.Percent)
	case pbx:
		r.PBX(f.A).Kill()
	case crash, crashed:
		r.leave(f.A)
		r.Agent(f.A).Kill()
	case frozen:
		r.leave(f.A)
		return r.Agent(f.A).Stop()
	case upgrade:
		r.leave(f.A)
		if err := r.Agent(f.A).Signal(syscall.SIGUSR2); err != nil {
			return err
		}
		ctx, cancel := cluster.Deadline(10 * time.Second)
		defer cancel()
		if err := r.Agent(f.A).Wait(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, r.Agent(f.A).Output())
		}
	case move:
		r.do(0, control.Command{Kind: control.Move, VIP: cluster.VIPName(f.B), Node: host(f.A)})
	case failback:
		r.do(0, control.Command{Kind: control.Failback})
	case drain:
		r.do(f.A, control.Command{Kind: control.Drain})
	}
	return nil
}

func (r *run) mend(f fault) error {
	switch f.Kind {
	case cut:
		return r.Restore(r.Node(f.A))
	case cable:
		return r.PlugCable(r.Node(f.A))
	case sever, oneWay:
		return r.Mend(r.Node(f.A), r.end(f.B))
	case loss:
		return r.Loss(0)
	case pbx:
		return r.StartPBX(f.A)
	case crash, crashed, upgrade:
		if err := r.StartAgent(f.A); err != nil {
			return err
		}
		r.mu.Lock()
		r.pids[f.A] = r.Agent(f.A).Pid
		r.mu.Unlock()
		r.back(f.A)
	case frozen:
		r.back(f.A)
		return r.Agent(f.A).Cont()
	case drain:
		r.do(f.A, control.Command{Kind: control.Undrain})
	}
	return nil
}

// do lets an agent carry out a command; if that agent fails, the next one. It is no
// failure of the test if none can.
func (r *run) do(node int, c control.Command) {
	r.work.Go(func() {
		for i := range nodes {
			ctx, cancel := cluster.Deadline(3 * time.Second)
			out, err := r.Client((node+i)%nodes).Do(ctx, c)
			cancel()
			if err == nil {
				r.note("       %v by %s: %s", c, host((node+i)%nodes), out)
				return
			}
			r.note("       %v by %s: %v", c, host((node+i)%nodes), err)
			if c.Kind == control.Drain || c.Kind == control.Undrain {
				return // a drain applies to the asked node itself
			}
		}
	})
}

// How long healing may take, for restarted agents, hold-downs and leases, on a machine
// shared with other work. After that nothing may change for a while.
const (
	healBound = 45 * time.Second
	calm      = 5 * time.Second
)

// heal ends the remaining faults. It waits until every agent says that every VIP is held,
// the phone gets answers, and the VIPs have stayed where they are.
func (r *run) heal(t *testing.T) {
	t.Helper()
	r.note("healing")
	must(t, r.Heal())
	for i := range nodes {
		r.do(i, control.Command{Kind: control.Undrain, Node: host(i)})
	}
	begun := lab.Now()
	since, last := begun, ""
	for {
		now, why := r.settled()
		switch {
		case now != last:
			since, last = lab.Now(), now
		case why == "" && lab.Now()-since >= calm:
			r.note("healed: %s, after %v", now, (since - begun).Round(time.Millisecond))
			return
		case lab.Now()-begun > healBound+calm:
			t.Errorf("not healed within %v: %s; %s", healBound, now, why)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// settled returns who holds what, and what is still wrong.
func (r *run) settled() (now, why string) {
	for i := range nodes {
		ctx, cancel := cluster.Deadline(5 * time.Second)
		st, err := r.Client(i).Status(ctx)
		cancel()
		if err != nil {
			return now, err.Error()
		}
		for v, s := range st.VIPs {
			now += fmt.Sprintf("%s by %s under %d; ", s.Name, s.Holder, s.Epoch)
			if s.State != "held" {
				why += fmt.Sprintf("%s says %s is %s: %s; ", st.Node, s.Name, s.State, s.Reason)
			}
			if p, ok := r.phones[v].Last(); !ok || p.Server != s.Holder || lab.Now()-p.Sent > time.Second {
				why += fmt.Sprintf("the phone's last answer for %s is of %s; ", s.Name, p.Server)
			}
		}
	}
	return now, why
}

// finish ends every agent by SIGTERM and checks what is left.
func (r *run) finish(t *testing.T) {
	t.Helper()
	r.stopPolls()
	r.work.Wait()
	for i := range nodes {
		must(t, r.Agent(i).Signal(syscall.SIGTERM))
	}
	ctx, cancel := cluster.Deadline(20 * time.Second)
	defer cancel()
	for i := range nodes {
		if err := r.Agent(i).Wait(ctx); err != nil {
			t.Errorf("agent of %s after SIGTERM: %v", host(i), err)
		}
	}
	events, err := r.addresses.Events()
	must(t, err)
	for _, w := range left(events, r.VIPs, r.foreign) {
		t.Error(w)
	}
}

// left returns the VIPs that are still bound, and the foreign addresses that were
// touched.
func left(events []lab.AddressEvent, vips []netip.Addr, foreign map[string]netip.Addr) (wrong []string) {
	bound := map[string]bool{}
	for _, e := range events {
		key := fmt.Sprintf("%v at %s", e.Addr, e.Host)
		if e.Bound {
			bound[key] = true
		} else {
			delete(bound, key)
		}
		if !e.Bound && e.Addr.Is4() && !slices.Contains(vips, e.Addr) {
			wrong = append(wrong, fmt.Sprintf("foreign address: %s was removed at %v", key, e.At))
		}
	}
	for key := range bound {
		if slices.ContainsFunc(vips, func(v netip.Addr) bool { return strings.HasPrefix(key, v.String()+" at ") }) {
			wrong = append(wrong, "orphan: "+key+" after every agent has ended")
		}
	}
	for h, addr := range foreign {
		if key := fmt.Sprintf("%v at %s", addr, h); !bound[key] {
			wrong = append(wrong, "foreign address: "+key+" is gone")
		}
	}
	return wrong
}

// evidence collects what was seen of a VIP.
func (r *run) evidence(t *testing.T, v int) evidence {
	t.Helper()
	overlaps, err := r.addresses.Overlaps(r.VIPs...)
	must(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	var tenures []lab.Tenure
	for _, whole := range r.arp.Tenures(r.VIPs[v]) {
		tenures = append(tenures, whole.Unbroken()...)
	}
	return evidence{vip: cluster.VIPName(v), addr: r.VIPs[v], violations: r.arp.Violations(), overlaps: overlaps,
		tenures: tenures, pings: r.phones[v].Pings(0, 0), claims: slices.Clone(r.claims[v]), absent: slices.Clone(r.absent)}
}
