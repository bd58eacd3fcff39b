package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestNetworkFollows: the router really reaches the holder, and no other machine takes
// the holder's place.
func TestNetworkFollows(t *testing.T) {
	dir := t.TempDir()
	script, record := filepath.Join(dir, "record.sh"), filepath.Join(dir, "record")
	writeScript(t, script, recorder)
	s := start(t, cluster.Options{TOML: calm, VIP: func(int) string {
		return fmt.Sprintf("[[vip.action]]\non = \"unreachable\"\nexec = [%q, %q, \"once\"]\n", script, record)
	}})
	s.scene(t, "router proven", moves{1, 0}, s.routerProven)
	s.scene(t, "router with an entry of its own", moves{1, 0}, func(t *testing.T, _ time.Duration) { s.stubbornRouter(t, record) })
	s.scene(t, "router away", moves{0, 0}, s.routerAway)
	s.scene(t, "rival", moves{0, 0}, s.rival)
	s.scene(t, "stale node is no rival", moves{1, 0}, s.staleIsNoRival)
}

// routers waits until a node reports these states of the VIPs' routers.
func (s *site) routers(t *testing.T, node int, want ...string) {
	t.Helper()
	s.status(t, node, fmt.Sprintf("routers %v", want), func(st control.Status) bool {
		for i, v := range st.VIPs {
			if v.Router != want[i] {
				return false
			}
		}
		return true
	})
}

// eventsOf returns a node's events of a kind about vip1 since a moment. Events are dated
// in whole milliseconds.
func (s *site) eventsOf(t *testing.T, node int, kind string, since time.Time) (found []control.Event) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	all, err := s.Client(node).Events(ctx, 1000)
	s.must(t, err)
	for _, e := range all {
		if e.Kind == kind && !e.Told && e.VIP == "vip1" && !e.Time.Before(since.Truncate(time.Millisecond)) {
			found = append(found, e)
		}
	}
	return found
}

// awaitEvent waits for the first such event.
func (s *site) awaitEvent(t *testing.T, node int, kind string, since time.Time) (e control.Event) {
	t.Helper()
	await(t, kind+" event", func(context.Context) error {
		found := s.eventsOf(t, node, kind, since)
		if len(found) == 0 {
			return fmt.Errorf("none yet")
		}
		e = found[0]
		return nil
	})
	return e
}

// routerProven: a move's timeline says when the router reached the new holder, and every
// node knows that it did.
func (s *site) routerProven(t *testing.T, _ time.Duration) {
	since := time.Now()
	s.done(t, 0, "move", "vip1", "pbx3")
	for i := range s.Nodes() {
		s.routers(t, i, "proven", "proven")
	}
	var bound, proven time.Duration
	await(t, "the proof in the timeline", func(context.Context) error {
		for _, e := range s.eventsOf(t, 2, control.Takeover, since) {
			if bound, proven = after(e, "bound"), after(e, "router proven"); proven > 0 {
				t.Logf("bound after %v, router proven after %v", bound, proven)
				return nil
			}
		}
		return fmt.Errorf("not there")
	})
	for i, want := range map[int]time.Duration{2: proven - bound, 0: 0} { // only the holder knows the time
		st := s.status(t, i, "a status", func(control.Status) bool { return true })
		if got := time.Duration(st.VIPs[0].Proof); (got - want).Abs() > 3*time.Microsecond {
			t.Errorf("%s: proof_ms %v, its event says %v", st.Node, got, want)
		}
	}
}

// neighbour returns the router's neighbour entry for a VIP.
func (s *site) neighbour(t *testing.T, vip int) (mac net.HardwareAddr) {
	t.Helper()
	s.must(t, s.Router().Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all, err := netlink.NeighList(link.Attrs().Index, unix.AF_INET)
		for _, n := range all {
			if n.IP.Equal(s.VIPs[vip].AsSlice()) {
				mac = n.HardwareAddr
			}
		}
		return err
	}))
	return mac
}

// pin sets an entry for vip1 in the router that no ARP packet changes, or deletes it.
func (s *site) pin(t *testing.T, mac net.HardwareAddr, change func(*netlink.Neigh) error) {
	t.Helper()
	s.must(t, s.Router().Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return change(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_INET, IP: s.VIPs[0].AsSlice(),
			HardwareAddr: mac, State: netlink.NUD_PERMANENT})
	}))
}

// stubbornRouter: the router keeps the old holder's MAC, whatever it hears. The router
// counts as unproven, then as unreachable, which runs the actions once, and as proven
// once it gives in.
func (s *site) stubbornRouter(t *testing.T, record string) {
	since := time.Now()
	s.pin(t, s.Node(0).MAC, netlink.NeighSet)
	s.done(t, 0, "move", "vip1", "pbx3")
	for i := range s.Nodes() {
		s.routers(t, i, "unproven", "proven")
	}
	e := s.awaitEvent(t, 2, control.KindUnreachable, since)
	if want := "vip1: not reached by the router for 10s: gateway 10.77.0.1 answers this node, but not on the VIP"; e.Text != want {
		t.Errorf("event says %q, want %q", e.Text, want)
	}
	vip := s.status(t, 2, "vip1 here", func(st control.Status) bool { return st.VIPs[0].Holder == "pbx3" }).VIPs[0]
	acted := fmt.Sprintf("unreachable vip1 %v pbx3 pbx1 %d %s once\n", s.VIPs[0], vip.Epoch, e.Text)
	await(t, "the unreachable action", func(context.Context) error {
		text, err := os.ReadFile(record)
		if err == nil && string(text) != acted {
			err = fmt.Errorf("recorded %q, want %q", text, acted)
		}
		return err
	})
	s.pin(t, s.Node(0).MAC, netlink.NeighDel)
	freed := lab.Now()
	for i := range s.Nodes() {
		s.routers(t, i, "proven", "proven")
	}
	t.Logf("proven %v after the router's entry went", lab.Now()-freed)
	if text, err := os.ReadFile(record); err != nil || string(text) != acted {
		t.Errorf("in the end recorded %q (%v), want %q", text, err, acted)
	}
}

// routerAway: the agents tell a router that drops everything for a while from one that
// points elsewhere, and they find it proven soon after its return.
func (s *site) routerAway(t *testing.T, _ time.Duration) {
	s.routers(t, 0, "proven", "proven")
	since := time.Now()
	s.must(t, s.PullCable(s.Router()))
	s.must(t, s.PlugCable(s.Router()))
	s.must(t, s.Cut(s.Router()))
	watch(time.Second)
	s.must(t, s.Restore(s.Router()))
	s.hears(t, 0, "pbx1", lab.Now())
	s.routers(t, 1, "proven", "proven")
	if found := s.eventsOf(t, 0, control.KindRival, since); len(found) > 0 {
		t.Errorf("told of a rival: %+v", found)
	}
}

// claim returns a function that claims vip1 once, by ARP, with a MAC that no host has.
func (s *site) claim(t *testing.T, mac net.HardwareAddr) func() {
	t.Helper()
	var fd int
	s.must(t, s.Node(1).Do(func() (err error) {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// Bypass pbx2's own fence, which would drop the frame.
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0, Ifindex: link.Attrs().Index})
	}))
	t.Cleanup(func() { unix.Close(fd) })
	ip := s.VIPs[0].As4()
	frame := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1},
		mac, ip[:], make([]byte, 6), ip[:])
	return func() {
		_, err := unix.Write(fd, frame)
		s.must(t, err)
	}
}

// rival claims vip1 ten times a second. That raises an alarm with the rival's MAC and
// moves nothing, and soon after the router points to the holder again.
func (s *site) rival(t *testing.T, at time.Duration) {
	s.routers(t, 0, "proven", "proven")
	since := time.Now()
	alien := net.HardwareAddr{2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}
	claim := s.claim(t, alien)
	for range 15 {
		claim()
		time.Sleep(100 * time.Millisecond)
	}
	last := lab.Now()
	await(t, "the router to be right", func(context.Context) error {
		if mac := s.neighbour(t, 0); !slices.Equal(mac, s.Node(0).MAC) {
			return fmt.Errorf("it points to %v", mac)
		}
		return nil
	})
	t.Logf("router right %v after the rival's last claim", lab.Now()-last)
	e := s.awaitEvent(t, 0, control.KindRival, since)
	if late := e.Time.Sub(since); late > time.Second || e.Text != fmt.Sprintf("vip1: %v claims 10.77.0.101; it stays here", alien) {
		t.Errorf("told after %v: %q", late, e.Text)
	}
	s.hears(t, 0, "pbx1", lab.Now())
	s.silent(t, 1, at, 20*time.Millisecond)
	over := func(e control.Event) bool { return strings.Contains(e.Text, "silent again, after 15 claims") }
	await(t, "the rival's end", func(context.Context) error {
		if !slices.ContainsFunc(s.eventsOf(t, 0, control.KindRival, since), over) {
			return fmt.Errorf("not told")
		}
		return nil
	})
	s.routers(t, 2, "proven", "proven")
}

// staleIsNoRival: a holder whose agent is frozen loses its lease, and its kernel keeps
// silent. The new holder hears no claim, neither then nor when the agent wakes up.
func (s *site) staleIsNoRival(t *testing.T, at time.Duration) {
	since := time.Now()
	s.must(t, s.Agent(0).Signal(unix.SIGSTOP))
	defer func() { _ = s.Agent(0).Signal(unix.SIGCONT) }()
	st := s.status(t, 1, "vip1 elsewhere", func(st control.Status) bool {
		return st.VIPs[0].Holder != "" && st.VIPs[0].Holder != "pbx1" && st.VIPs[0].Router == "proven"
	})
	holder := s.Index(st.VIPs[0].Holder)
	watch(1500 * time.Millisecond) // meanwhile ARP asks for vip1 every 10 ms, and pbx1's kernel must not answer
	s.must(t, s.Agent(0).Signal(unix.SIGCONT))
	s.status(t, 0, "pbx1 to know", func(st control.Status) bool { return st.VIPs[0].Holder == s.Node(holder).Name })
	watch(500 * time.Millisecond)
	st = s.status(t, holder, "the holder's counters", func(control.Status) bool { return true })
	if n := st.Counters["arp_rival_claims"]; n != 0 {
		t.Errorf("%d claims by a stale node", n)
	}
	if found := s.eventsOf(t, holder, control.KindRival, since); len(found) > 0 {
		t.Errorf("told of a rival: %+v", found)
	}
	for _, v := range s.arp.Violations() {
		if v.Asked >= at {
			t.Errorf("ARP: %v", v)
		}
	}
	s.planted["pbx1"] = true // its address stayed beyond the lease, silenced, until the kernel removed it
	if mac := s.neighbour(t, 0); !slices.Equal(mac, s.Node(holder).MAC) {
		t.Errorf("the router points to %v, want %v", mac, s.Node(holder).MAC)
	}
}
