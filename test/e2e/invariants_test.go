package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// check checks the invariants of docs/design.md §10 for the time since a moment at which
// every VIP had one holder.
func (s *site) check(t testing.TB, since time.Duration, want moves) {
	t.Helper()
	s.checkOneHolder(t, since)
	s.checkForeign(t)
	s.checkEpochs(t)
	for v, addr := range s.VIPs {
		n, path := s.takeovers(t, addr, since)
		if n != want[v] {
			t.Errorf("%s got a new holder %d times, want %d: %v", cluster.VIPName(v), n, want[v], path)
		}
	}
}

// checkOneHolder: by the kernel's order of events, two hosts never have one VIP, no
// matter which hosts can reach them, unless an agent got no core to unbind it; that
// counts only on the switch, where the ARP observer is. And no two hosts answer ARP
// questions. A single question may have two answers although the kernel's order shows no
// overlap: a busy machine delivered the copies of one broadcast apart. That may happen
// once, never twice in a row.
func (s *site) checkOneHolder(t testing.TB, since time.Duration) {
	t.Helper()
	overlaps, err := s.addresses.Overlaps(s.VIPs...)
	s.must(t, err)
	for _, o := range overlaps {
		if o.From >= since && !slices.ContainsFunc(o.Hosts, func(h string) bool { return s.planted[h] }) {
			s.must(t, lab.WatchStolen().Judge(t, o, s.Subnet().Contains(o.Addr)))
		}
	}
	last, n, inRow := map[netip.Addr]time.Duration{}, 0, 0
	for _, v := range s.arp.Violations() {
		if v.Asked < since || slices.ContainsFunc(v.Answers, func(a lab.ARPAnswer) bool { return s.planted[a.Host] }) {
			continue
		}
		if before, is := last[v.VIP]; is && v.Asked-before < 50*time.Millisecond {
			inRow++
		}
		last[v.VIP] = v.Asked
		if n++; n <= 3 {
			t.Logf("ARP: %v", v)
		}
	}
	if inRow > 0 {
		t.Errorf("two holders: %d ARP questions were answered by two hosts, %d of them right after another", n, inRow)
	}
}

// checkForeign: no address other than a VIP was removed, and none was added elsewhere.
func (s *site) checkForeign(t testing.TB) {
	t.Helper()
	events, err := s.addresses.Events()
	s.must(t, err)
	for _, e := range events {
		if !e.Bound && !slices.Contains(s.VIPs, e.Addr) && e.Addr.Is4() {
			t.Errorf("foreign address: %v of %s was removed at %v", e.Addr, e.Host, e.At)
		}
	}
	for host, addr := range s.foreign {
		if hosts := s.bound(t, addr); !slices.Equal(hosts, []string{host}) {
			t.Errorf("foreign address: %v is at %v, want %s", addr, hosts, host)
		}
	}
}

// takeovers counts how often a VIP came up on another host than before, and names the
// hosts in order.
func (s *site) takeovers(t testing.TB, addr netip.Addr, since time.Duration) (n int, path []string) {
	t.Helper()
	events, err := s.addresses.Events()
	s.must(t, err)
	last := ""
	for _, e := range events {
		if e.Addr != addr || !e.Bound || s.planted[e.Host] && e.At >= since {
			continue
		}
		if e.At >= since && last != "" && e.Host != last {
			n++
			path = append(path, fmt.Sprintf("%s -> %s at %v", last, e.Host, e.At))
		}
		last = e.Host
	}
	return n, path
}

// ledger records which node acquired each epoch and when, and the highest epoch of each
// VIP.
type ledger struct {
	acquired map[string]map[uint64]acquisition // by VIP or role, by epoch
	highest  map[string]uint64
}

type acquisition struct {
	node string
	at   time.Time
}

func newLedger() ledger {
	return ledger{map[string]map[uint64]acquisition{}, map[string]uint64{}}
}

// checkEpochs: no epoch is acquired twice, a later acquisition has a higher epoch, and
// the highest epoch that the agents know never falls.
func (s *site) checkEpochs(t testing.TB) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	highest := map[string]uint64{}
	for i := range s.Nodes() {
		s.epochs.read(ctx, t, s.Client(i), highest)
	}
	for vip, e := range highest {
		if e < s.epochs.highest[vip] {
			t.Errorf("epochs: the agents say %d of %s, and said %d before", e, vip, s.epochs.highest[vip])
		}
		s.epochs.highest[vip] = e
	}
	for vip, by := range s.epochs.acquired {
		var epochs []uint64
		for e := range by {
			epochs = append(epochs, e)
		}
		slices.Sort(epochs)
		for i := 1; i < len(epochs); i++ {
			a, b := by[epochs[i-1]], by[epochs[i]]
			if b.at.Before(a.at) {
				t.Errorf("epochs: %s acquired %s under %d at %v, before %s did under %d at %v", b.node, vip, epochs[i], b.at, a.node, epochs[i-1], a.at)
			}
		}
	}
}

// read reads a live agent's report. An agent that a scene has ended gives none.
func (l ledger) read(ctx context.Context, t testing.TB, c *control.Client, highest map[string]uint64) {
	t.Helper()
	st, err := c.Status(ctx)
	if err != nil {
		return
	}
	for _, v := range st.VIPs {
		highest[v.Name] = max(highest[v.Name], v.Epoch)
	}
	events, err := c.Events(ctx, 1000)
	if err != nil {
		t.Errorf("epochs: %v", err)
	}
	for _, e := range events {
		if e.Kind != control.Takeover || e.Told { // only the new holder's own event has the exact time
			continue
		}
		if l.acquired[e.VIP] == nil {
			l.acquired[e.VIP] = map[uint64]acquisition{}
		}
		if other, is := l.acquired[e.VIP][e.Epoch]; is && other.node != e.To {
			t.Errorf("epochs: %s and %s both acquired %s under %d", other.node, e.To, e.VIP, e.Epoch)
		}
		l.acquired[e.VIP][e.Epoch] = acquisition{e.To, e.Time.Add(after(e, "lease"))}
	}
}

// after returns the time of a takeover's mark, counted from the takeover's first mark.
func after(e control.Event, mark string) time.Duration {
	for _, m := range e.Timeline {
		if m.Mark == mark {
			return time.Duration(m.At)
		}
	}
	return 0
}

// end ends every agent at once by SIGTERM, and looks for orphaned addresses.
func (s *site) end(t testing.TB) {
	t.Helper()
	if t.Failed() || s.ruined {
		return // the failure was reported; the cluster may be in any state
	}
	s.must(t, s.Heal())
	for i := range s.Nodes() {
		if p := s.Agent(i); p != nil && !ended(p) {
			s.must(t, p.Signal(sigterm))
		}
	}
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	for i := range s.Nodes() {
		if p := s.Agent(i); p != nil {
			if err := inOrder(p.Wait(ctx)); err != nil && !killed(err) {
				t.Errorf("agent of %s: %v", p.Host.Name, err)
			}
		}
	}
	s.checkForeign(t)
	for v, addr := range s.VIPs {
		if hosts := s.bound(t, addr); len(hosts) > 0 {
			t.Errorf("orphan: %s is still at %v after every agent has ended", cluster.VIPName(v), hosts)
		}
	}
}
