package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

const (
	runs     = 11                     // good runs for each median
	attempts = 5 * runs               // before the machine counts as too busy
	maxStall = 5 * time.Millisecond   // of the observer; a run with more is rejected
	patience = 30 * time.Second       // for what must come
	around   = 100 * time.Millisecond // watched before and after each fault
)

// calm lets nodes count as fit again at once, so that one run can follow another.
const calm = "[timing]\nhold_down = \"0s\"\n"

var binary string

func TestMain(m *testing.M) {
	os.Exit(shipped.Main(m, "bench", &binary, "-trimpath", "-ldflags", "-s -w"))
}

// site is a cluster with a phone per VIP and ARP questions from the router.
type site struct {
	*cluster.Cluster
	b      *testing.B
	arp    *lab.ARPObserver
	phones []*lab.SIPObserver
}

func start(b *testing.B, toml string) *site {
	b.Helper()
	return startWith(b, cluster.Options{Binary: binary, TOML: toml})
}

func startWith(b *testing.B, o cluster.Options) *site {
	b.Helper()
	_, policy, err := shipped.Policy()
	if err != nil {
		b.Fatal(err)
	}
	changed := o.Agent
	o.Agent = func(spec lab.Spec) lab.Spec { // as the unit starts it
		if changed != nil {
			spec = changed(spec)
		}
		return spec.By(policy...)
	}
	c, err := cluster.Start(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	s := &site{Cluster: c, b: b}
	s.rest()
	return s
}

// observe starts the phones and the ARP questions.
func (s *site) observe() {
	s.b.Helper()
	for _, v := range s.VIPs {
		p, err := s.Phone().ObserveSIP(netip.AddrPortFrom(v, 5060), 0)
		s.must(err)
		s.phones = append(s.phones, p)
	}
	arp, err := s.ObserveARP(0, s.VIPs...)
	s.must(err)
	s.arp = arp
	s.b.Cleanup(s.oneHolder)
}

// oneHolder fails if one ARP question got two answers. Besides missed targets, that is
// all that fails here.
func (s *site) oneHolder() {
	v := s.arp.Violations()
	fmt.Printf("  ARP: %d rounds of questions, %d answered by two hosts\n", s.arp.Asked(), len(v))
	for _, v := range v[:min(len(v), 5)] {
		s.b.Errorf("two holders: %v", v)
	}
}

func (s *site) must(err error) {
	s.b.Helper()
	if err != nil {
		s.b.Fatal(err)
	}
}

// await asks until good returns nil. It asks slowly, so that asking does not disturb the
// measurement.
func (s *site) await(what string, good func(context.Context) error) {
	s.b.Helper()
	for end := lab.Now() + patience; ; {
		err := good(context.Background())
		if err == nil {
			return
		}
		if lab.Now() > end {
			s.b.Fatalf("wait for %s: not within %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// rest waits until every node sees every node fit and every VIP verified, and brings the
// VIPs home.
func (s *site) rest() {
	s.b.Helper()
	s.must(s.Heal())
	s.await("the cluster at rest", s.atRest)
	for v := range s.VIPs {
		if h, err := s.Holder(context.Background(), 0, v); err != nil || h != s.Node(v).Name {
			s.must(err)
			_, err := s.Client(0).Do(context.Background(), control.Command{Kind: control.Failback})
			s.must(err)
			break
		}
	}
	s.await("the cluster at rest and home", s.atRest)
	runtime.GC() // now, not during a measurement
}

func (s *site) atRest(ctx context.Context) error {
	for i := range s.Nodes() {
		st, err := s.Client(i).Status(ctx)
		if err != nil {
			return err
		}
		for _, n := range st.Nodes {
			if !n.Alive || !n.Fit || n.HeldDown {
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
}

// hears waits until vip1's phone hears a node, and then for a while.
func (s *site) hears(node string, since time.Duration) {
	s.b.Helper()
	s.await("the phone hears "+node, func(context.Context) error {
		if last, ok := s.phones[0].Last(); !ok || last.Server != node || last.Sent < since {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	})
	time.Sleep(around)
}

// figure is the result of a number of good runs.
type figure struct {
	name     string
	target   time.Duration
	values   []time.Duration
	rejected int
}

// missed reports whether the median is above the promised target. It returns false on a
// busy machine, which had more than a third of the runs rejected: such a machine delays
// the other runs too.
func (f figure) missed() bool { return f.median() > f.target && !f.busy() }

func (f figure) busy() bool { return 3*f.rejected > f.rejected+len(f.values) }

// median returns the median; values must be in order.
func (f figure) median() time.Duration { return f.values[len(f.values)/2] }

// silences repeats a fault on vip1's holder, pbx1, until enough runs were seen clearly.
func (s *site) silences(name string, target time.Duration, fault, mend func() error) {
	s.b.Helper()
	f := figure{name: name, target: target}
	for range attempts {
		if len(f.values) == runs {
			break
		}
		s.rest()
		time.Sleep(around)
		at := lab.Now()
		s.must(fault())
		s.hears("pbx3", at)
		r := s.phones[0].Report(at-around/2, lab.Now()-around/2)
		if r.Stall > maxStall {
			f.rejected++
		} else {
			f.values = append(f.values, r.Silence)
		}
		s.must(mend())
	}
	f.print(s.b)
}

func (f figure) print(b *testing.B) {
	b.Helper()
	if len(f.values) < runs {
		b.Errorf("%s: only %d of %d runs seen clearly in %d attempts: the machine is too busy (load %s)", f.name, len(f.values), runs, attempts, load())
	}
	if len(f.values) == 0 {
		return
	}
	slices.Sort(f.values)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	median, verdict := f.median(), ""
	switch {
	case f.missed():
		verdict = ", MISSED"
		b.Errorf("%s: median %.1f ms, the target is %.1f (load %s)", f.name, ms(median), ms(f.target), load())
	case f.busy():
		verdict = ", the machine was too busy to judge"
	}
	fmt.Printf("  %-28s median %7.1f ms   worst %7.1f ms   target <= %6.0f ms   %d runs, %d rejected, load %s%s\n",
		f.name, ms(median), ms(f.values[len(f.values)-1]), ms(f.target), len(f.values), f.rejected, load(), verdict)
	b.ReportMetric(ms(median), "ms-median")
	b.ReportMetric(float64(f.rejected), "rejected")
	b.ReportMetric(0, "ns/op")
}

// load returns the machine's load average over the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func nothing() error { return nil }
