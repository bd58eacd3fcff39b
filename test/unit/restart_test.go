package unit

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

const patience = 30 * time.Second

// service is a cluster whose agents run as systemd runs them.
type service struct {
	*cluster.Cluster
	t       *testing.T
	bus     string
	manager *manager
	arp     *lab.ARPObserver
	phones  []*lab.SIPObserver
}

func startService(t *testing.T, binary string) *service {
	t.Helper()
	s := &service{t: t, bus: startBus(t)}
	s.manager = startManager(t, s.bus)
	var err error
	s.Cluster, err = cluster.Start(cluster.Options{Binary: binary, TOML: "[timing]\nhold_down = \"0s\"\n"})
	s.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			for i := range s.Nodes() {
				t.Logf("%s:\n%s", s.Node(i).Name, s.Agent(i).LastWords())
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.arp, err = s.ObserveARP(5*time.Millisecond, s.VIPs...)
	s.must(err)
	lab.WatchStolen()
	for _, v := range s.VIPs {
		phone, err := s.Phone().ObserveSIP(netip.AddrPortFrom(v, 5060), 0)
		s.must(err)
		s.phones = append(s.phones, phone)
	}
	s.home()
	return s
}

func (s *service) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// home waits until all is well, moves vip1 to pbx1, and waits until the phones hear their
// homes.
func (s *service) home() {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	for i := range s.Nodes() {
		s.must(s.WaitHeld(ctx, i, "pbx1", "pbx2", "pbx3"))
	}
	if h, err := s.Holder(ctx, 1, 0); err != nil || h != "pbx1" {
		s.must(err)
		_, err := s.Client(1).Do(ctx, control.Command{Kind: control.Move, VIP: "vip1", Node: "pbx1"})
		s.must(err)
	}
	for v := range s.VIPs {
		s.hears(v, s.Node(v).Name)
	}
}

func (s *service) hears(vip int, node string) {
	s.t.Helper()
	since := lab.Now()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	s.must(lab.WaitFor(ctx, fmt.Sprintf("%s answers for %s", node, cluster.VIPName(vip)), func() error {
		if last, ok := s.phones[vip].Last(); !ok || last.Server != node || last.Sent < since {
			return fmt.Errorf("last answer from %q", last.Server)
		}
		return nil
	}))
}

// systemctl does to a node's agent what systemd does: ExecStop=, SIGTERM if that left the
// agent running, and for a restart the next agent.
func (s *service) systemctl(job string, node int) {
	s.t.Helper()
	agent := s.Agent(node)
	s.manager.runs(job, agent.Pid)
	said, code, _ := execStop(s.t, binary, fmt.Sprint(agent.Pid), s.bus)
	if code != 0 {
		s.t.Errorf("ExecStop= ended with %d: %s", code, said)
	}
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	select {
	case <-agent.Done():
	case <-time.After(time.Second): // it has ended, but may not be reaped yet
		s.t.Errorf("ExecStop= left the agent running: %s", said)
		s.must(agent.Signal(syscall.SIGTERM))
	}
	if err := agent.Wait(ctx); err != nil {
		s.t.Errorf("the agent ended with %v, want exit status 0", err)
	}
	if job == "restart" {
		s.must(s.StartAgent(node))
		s.must(lab.WaitFor(ctx, "the successor", func() error { _, err := s.Client(node).Status(ctx); return err }))
	}
}

func (s *service) vips() []control.VIPStatus {
	s.t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	st, err := s.Client(1).Status(ctx)
	s.must(err)
	return st.VIPs
}

// undisturbed asserts that since a moment the phones lost nothing, nothing moved, and no
// epoch rose. It returns false if the machine itself stood still for too long: then
// nothing is known.
func (s *service) undisturbed(begun time.Duration, before []control.VIPStatus) (clear bool) {
	s.t.Helper()
	for v, phone := range s.phones {
		r := phone.Report(begun, lab.Now()-50*time.Millisecond)
		s.t.Logf("%s: %v", cluster.VIPName(v), r)
		if r.Stall > 250*time.Millisecond {
			s.t.Log("the machine stood still")
			return false
		}
		if r.By[s.Node(v).Name] != r.Answered || r.Lost > r.Sent/1000 {
			s.t.Errorf("%s: %d lost of %d, answers by %v", cluster.VIPName(v), r.Lost, r.Sent, r.By)
		}
	}
	for v, now := range s.vips() {
		if now.Epoch != before[v].Epoch || now.Holder != before[v].Holder {
			s.t.Errorf("%s is at %s under epoch %d, was at %s under %d", now.Name, now.Holder, now.Epoch, before[v].Holder, before[v].Epoch)
		}
	}
	return true
}

func (s *service) oneHolder() {
	s.t.Helper()
	for _, v := range s.arp.Violations() {
		s.t.Errorf("two holders: %v", v)
	}
}

// TestRestart does `systemctl restart` for each node's agent; two of them hold a VIP.
func TestRestart(t *testing.T) {
	s := startService(t, binary)
	for range 5 {
		before, begun := s.vips(), lab.Now()
		for node := range s.Nodes() {
			s.systemctl("restart", node)
			time.Sleep(600 * time.Millisecond) // longer than the rest of a lease that was not renewed
		}
		clear := s.undisturbed(begun, before)
		s.oneHolder()
		if clear {
			return
		}
		s.home()
	}
	t.Fatal("the machine stands still too often to tell anything")
}

// TestUpgrade replaces the binary under running agents, as a package does, and restarts
// the agents one after the other.
func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	installed, next := filepath.Join(dir, "sipalive"), filepath.Join(dir, "next")
	old, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(installed, old, 0o755); err != nil {
		t.Fatal(err)
	}
	s := startService(t, installed)
	for i := range s.Nodes() {
		s.runs(i, "v1.0.0")
	}
	for i := range 5 {
		release := fmt.Sprintf("v%d.0.0", 2+i)
		s.must(shipped.BuildTo(next, version(release)...))
		s.must(os.Rename(next, installed))
		before, begun := s.vips(), lab.Now()
		for node := range s.Nodes() {
			s.systemctl("restart", node)
			s.runs(node, release)
		}
		time.Sleep(1500 * time.Millisecond) // longer than the leases that were left behind
		clear := s.undisturbed(begun, before)
		s.oneHolder()
		if clear {
			return
		}
		s.home()
	}
	t.Fatal("the machine stands still too often to tell anything")
}

// runs asserts the version of the program that runs as a node's agent.
func (s *service) runs(node int, version string) {
	s.t.Helper()
	out, err := exec.Command(fmt.Sprintf("/proc/%d/exe", s.Agent(node).Pid), "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "sipalive "+version+",") {
		s.t.Errorf("%s runs %q, %v, want %s", s.Node(node).Name, out, err, version)
	}
}

// TestStop: `systemctl stop`, a shutdown, and a stop for an unknown cause hand over.
func TestStop(t *testing.T) {
	s := startService(t, binary)
	for _, job := range []string{"stop", ""} {
		before, begun := s.vips(), lab.Now()
		s.systemctl(job, 0)
		s.hears(0, "pbx3")
		const most = 100 * time.Millisecond
		r, excused, err := lab.WatchStolen().Excuse(s.phones[0], begun, lab.Now()-20*time.Millisecond, most)
		s.must(err)
		t.Logf("job %q: %v, excused %v", job, r, excused)
		if r.Silence > most+excused {
			t.Errorf("job %q: silence %v, want at most %v", job, r.Silence, most)
		}
		ctx, cancel := cluster.Deadline(patience)
		s.must(s.WaitHolder(ctx, 1, 0, "pbx3"))
		cancel()
		if after := s.vips()[0]; after.Epoch <= before[0].Epoch {
			t.Errorf("job %q: epoch %d after a hand over, was %d", job, after.Epoch, before[0].Epoch)
		}
		s.oneHolder()
		s.must(s.StartAgent(0))
		s.home()
	}
}
