package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// variant writes a copy of the cluster's file with more text at its end.
func (s *site) variant(t *testing.T, more string) (path string) {
	t.Helper()
	text, err := os.ReadFile(s.Config)
	s.must(t, err)
	path = filepath.Join(t.TempDir(), "sipalive.toml")
	s.must(t, os.WriteFile(path, append(text, more...), 0o644))
	return path
}

// restart kills a node's agent, which leaves everything as it is, and starts it again.
func (s *site) restart(t *testing.T, node int) {
	t.Helper()
	s.Agent(node).Kill()
	s.must(t, s.StartAgent(node))
}

// restarted: the holder's agent crashes and is restarted within its lease.
func (s *site) restarted(t *testing.T, at time.Duration) {
	before := s.epoch(t, 0)
	s.restart(t, 0)
	s.status(t, 0, "pbx1 holds on", func(st control.Status) bool {
		return st.Quorum && st.VIPs[0].Holder == "pbx1" && st.VIPs[0].State == "held"
	})
	watch(1500 * time.Millisecond) // longer than the lease that it found
	s.undisturbed(t, at)
	if after := s.epoch(t, 0); after != before {
		t.Errorf("epoch of vip1 is %d after a restart within the lease, want %d as before", after, before)
	}
	for _, addr := range s.VIPs {
		s.noEvents(t, at, addr)
	}
}

func (s *site) epoch(t *testing.T, vip int) uint64 {
	t.Helper()
	return s.status(t, 1, "status", func(control.Status) bool { return true }).VIPs[vip].Epoch
}

// noEvents asserts that no host has bound or unbound the address since a moment.
func (s *site) noEvents(t *testing.T, since time.Duration, addr netip.Addr) {
	t.Helper()
	events, err := s.addresses.Events()
	s.must(t, err)
	for _, e := range events {
		if e.At >= since && e.Addr == addr {
			t.Errorf("address: %s: %v bound %v at %v, want it left alone", e.Host, e.Addr, e.Bound, e.At)
		}
	}
}

// secondAgent: one agent per node, whichever runtime directory the second one names.
func (s *site) secondAgent(t *testing.T, at time.Duration) {
	c := s.within(t, 0, "run", "-c", s.Config, "--run-dir", s.RunDir(0))
	if c.code != 1 || !strings.Contains(c.err, "one agent per node; stop that one first") || strings.Count(c.err, "\n") != 1 {
		t.Errorf("second agent: exit %d: %q, want 1 and one line", c.code, c.err)
	}
	c = s.within(t, 0, "run", "-c", s.Config, "--run-dir", t.TempDir())
	if c.code != 1 || !strings.Contains(c.err, "address already in use") {
		t.Errorf("second agent with a runtime directory of its own: exit %d: %q, want 1, port in use", c.code, c.err)
	}
	s.undisturbed(t, at)
	for _, addr := range s.VIPs {
		s.noEvents(t, at, addr)
	}
}

// removedByHand: an address that somebody removed by hand comes back.
func (s *site) removedByHand(t *testing.T, at time.Duration) {
	s.must(t, s.Node(0).Unbind(s.VIPs[0]))
	s.hears(t, 0, "pbx1", at+time.Millisecond)
	s.silent(t, 0, at, 500*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
}

// boundByHand: an address that somebody bound by hand on a node that does not hold it is
// removed.
func (s *site) boundByHand(t *testing.T, at time.Duration) {
	s.planted["pbx3"] = true
	s.must(t, s.Node(2).Bind(s.VIPs[0]))
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(t, lab.WaitFor(ctx, "pbx3 loses what it does not hold", func() error {
		if h := s.holder(t, 0); h != "pbx1" {
			return fmt.Errorf("it is at %s", h)
		}
		return nil
	}))
	intervals, err := s.addresses.Intervals(s.VIPs[0])
	s.must(t, err)
	for _, i := range intervals {
		if i.Host == "pbx3" && i.From >= at && i.To-i.From > time.Second {
			t.Errorf("vip1, bound on pbx3 by hand, stayed for %v, want at most 200 ms or so", i.To-i.From)
		}
	}
	watch(200 * time.Millisecond)
	s.hears(t, 0, "pbx1", lab.Now())
}

// withoutRight: the agent says in one line which capability it lacks.
func (s *site) withoutRight(t *testing.T, at time.Duration) {
	s.Agent(2).Kill()
	var c command
	s.must(t, s.Node(2).Do(func() error {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_RAW, 0, 0, 0); err != nil {
			return err
		}
		c = execute(t, exec.Command(binary, "run", "-c", s.Config, "--run-dir", s.RunDir(2)))
		return nil
	}))
	if want := "run pbx3: CAP_NET_RAW missing (run as root or from the systemd unit)\n"; c.code != 1 || c.err != want {
		t.Errorf("agent without CAP_NET_RAW: exit %d, %q, want 1, %q", c.code, c.err, want)
	}
	s.undisturbed(t, at)
}

// TestLeftovers: an address that an earlier run left bound is removed, on any interface
// and with any prefix length. Nothing else is removed with it.
func TestLeftovers(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm, PBX: func(h *lab.Host) (lab.Spec, bool) {
		vip := h.Addr.As4()
		vip[3] = 101
		switch h.Name {
		case "pbx2":
			plant(t, h, "lo", vip, 32)
		case "pbx3":
			plant(t, h, "eth0", vip, 24)
		}
		return demoPBX(h)
	}})
	s.settle(t)
	for v := range s.VIPs {
		if h := s.holder(t, v); h != s.home(v) {
			t.Errorf("%s is at %q, want %s alone", cluster.VIPName(v), h, s.home(v))
		}
	}
	s.checkForeign(t)
}

func plant(t *testing.T, h *lab.Host, dev string, ip [4]byte, bits int) {
	t.Helper()
	err := h.Do(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip[:], Mask: net.CIDRMask(bits, 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
}
