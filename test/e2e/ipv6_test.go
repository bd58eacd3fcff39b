package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestIPv6: nodes hear each other by IPv6 and hold one IPv4 and one IPv6 VIP, behind a
// router with a link-local address.
func TestIPv6(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm, IPv6: true})
	s.scene(t, "clocks compared", moves{0, 0}, s.clocks6)
	s.scene(t, "planned move", moves{1, 1}, s.plannedMove6)
	s.scene(t, "duplicate and rival", moves{0, 0}, s.duplicate6)
	s.scene(t, "host silent", moves{0, 1}, s.silentHost6)
	s.scene(t, "agent frozen", moves{0, 1}, s.frozen6)
	s.scene(t, "two of three die", moves{0, 1}, s.lastOfThree6)
}

// clocks6: doctor compares, by TCP, the clocks of nodes that are configured with IPv6
// addresses.
func (s *site) clocks6(t *testing.T, _ time.Duration) {
	c := s.within(t, 0, "doctor", "-c", s.Config, "--run-dir", s.RunDir(0))
	for _, n := range []string{"pbx2", "pbx3"} {
		matches(t, "doctor", c.out, `(?m)^ok +drift: `+n+`: its clock runs [+-][0-9]+ ppm beside this one`)
	}
}

// lastOfThree6: heartbeats go through the gateway by IPv6. So the last node standing
// knows about the router of the IPv6 VIP, and nothing about that of the other VIP.
func (s *site) lastOfThree6(t *testing.T, _ time.Duration) {
	s.relayKnown(t)
	at := lab.Now()
	s.must(t, s.Cut(s.Node(0)))
	s.must(t, s.Cut(s.Node(1)))
	s.hears(t, 1, "pbx3", at)
	s.state(t, 2, 1, "survivor")
	s.status(t, 2, "vip1 held by nobody", func(st control.Status) bool {
		return st.VIPs[0].State == "vacant" && strings.Contains(st.VIPs[0].Reason, "heartbeats do not go through its gateway")
	})
	s.comeBack(t, 0)
	s.comeBack(t, 1)
	for v := range s.VIPs {
		s.state(t, 2, v, "held")
	}
	if st := s.status(t, 2, "pbx3's word", func(control.Status) bool { return true }); st.VIPs[1].Holder != "pbx3" {
		t.Errorf("vip2 is at %s after the others came back", st.VIPs[1].Holder)
	}
}

// plannedMove6 moves both VIPs to one node; the router must follow.
func (s *site) plannedMove6(t *testing.T, at time.Duration) {
	s.done(t, 2, "move", "vip2", "pbx3")
	s.done(t, 0, "move", "vip1", "pbx3")
	for v := range s.VIPs {
		s.hears(t, v, "pbx3", at)
		s.silent(t, v, at, 200*time.Millisecond)
	}
	for i := range s.Nodes() {
		s.routers(t, i, "proven", "proven")
	}
	st := s.status(t, 0, "SIP up by IPv6", func(st control.Status) bool { return node(st, "pbx3").SIP == "up" })
	if a := node(st, "pbx1").Address; a != s.Node(0).Addr6.String() {
		t.Errorf("pbx1 is at %s", a)
	}
}

// taker waits until another node than the VIP's home answers the phone, and returns that
// node. It is pbx3, the spare, unless this machine gave pbx3 no CPU time for longer than
// its head start of 50 ms.
func (s *site) taker(t *testing.T, vip int, since time.Duration) (node int) {
	t.Helper()
	await(t, "a taker of "+cluster.VIPName(vip), func(context.Context) error {
		last, ok := s.phones[vip].Last()
		node = slices.IndexFunc(s.Nodes(), func(h *lab.Host) bool { return h.Name == last.Server })
		if !ok || last.Sent < since || node < 0 || last.Server == s.home(vip) {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	})
	t.Logf("%s is at %s", cluster.VIPName(vip), s.Node(node).Name)
	return node
}

// silentHost6 cuts off the holder of the IPv6 VIP.
func (s *site) silentHost6(t *testing.T, _ time.Duration) {
	s.routers(t, 0, "proven", "proven")
	at := lab.Now()
	s.must(t, s.Cut(s.Node(1)))
	taker := s.Node(s.taker(t, 1, at)).Name
	s.silent(t, 1, at, 2*time.Second)
	s.routers(t, 0, "proven", "proven")
	s.must(t, s.Restore(s.Node(1)))
	s.status(t, 1, "pbx2 to know", func(st control.Status) bool { return st.VIPs[1].Holder == taker })
	s.silent(t, 0, at, 20*time.Millisecond)
}

// frozen6: the kernel of a frozen holder keeps silent about an address that it still has.
// The phone hears only the new holder.
func (s *site) frozen6(t *testing.T, at time.Duration) {
	s.must(t, s.Agent(1).Signal(unix.SIGSTOP))
	defer func() { _ = s.Agent(1).Signal(unix.SIGCONT) }()
	taker := s.taker(t, 1, at)
	name, moved := s.Node(taker).Name, lab.Now()
	watch(time.Second)
	if r := s.saw(1, moved); len(r.By) != 1 || r.By[name] == 0 {
		t.Errorf("the phone heard %v, and %s has the VIP", r, name)
	}
	s.must(t, s.Agent(1).Signal(unix.SIGCONT))
	s.status(t, 1, "pbx2 to know", func(st control.Status) bool { return st.VIPs[1].Holder == name })
	st := s.status(t, taker, "the taker's counters", func(control.Status) bool { return true })
	if n := st.Counters["arp_rival_claims"]; n != 0 {
		t.Errorf("%d claims by a stale node", n)
	}
	s.planted["pbx2"] = true // see staleIsNoRival
}
