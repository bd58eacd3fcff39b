package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestTakeovers plays what makes a VIP move, at the default timing.
func TestTakeovers(t *testing.T) {
	s := start(t, cluster.Options{TOML: calm})
	s.scene(t, "planned move", moves{1, 0}, s.plannedMove)
	s.scene(t, "failback", moves{2, 0}, s.failback)
	s.scene(t, "drain", moves{1, 1}, s.drain)
	s.scene(t, "PBX killed", moves{1, 0}, s.killedPBX)
	s.scene(t, "host silent", moves{1, 0}, s.silentHost)
	s.scene(t, "cable pulled", moves{1, 0}, s.pulledCable)
	s.scene(t, "minority partition", moves{1, 0}, s.minority)
	s.scene(t, "SIGTERM", moves{1, 0}, s.terminated)
	s.scene(t, "stop", moves{1, 0}, s.stopped)
}

// plannedMove asks a node that is neither the old nor the new holder.
func (s *site) plannedMove(t *testing.T, at time.Duration) {
	out := s.done(t, 1, "move", "vip1", "pbx3")
	if !strings.HasPrefix(out, "vip1: pbx1 -> pbx3 in ") {
		t.Errorf("move says %q", out)
	}
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 200*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
}

func (s *site) failback(t *testing.T, at time.Duration) {
	s.done(t, 0, "move", "vip1", "pbx3")
	s.hears(t, 0, "pbx3", at)
	back := lab.Now()
	if out := s.done(t, 2, "failback"); !strings.HasPrefix(out, "vip1: pbx3 -> pbx1 in ") {
		t.Errorf("failback says %q", out)
	}
	s.hears(t, 0, "pbx1", back)
	s.silent(t, 0, back, 200*time.Millisecond)
	if out := s.done(t, 0, "failback", "vip1"); !strings.HasPrefix(out, "nothing to move: ") {
		t.Errorf("failback of what is home says %q", out)
	}
}

// drain: at the node itself and from another node. A drain outlives the agent.
func (s *site) drain(t *testing.T, at time.Duration) {
	if out := s.done(t, 0, "drain"); !strings.HasPrefix(out, "pbx1 is drained; vip1: pbx1 -> pbx3 in ") {
		t.Errorf("drain says %q", out)
	}
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 200*time.Millisecond)

	s.Agent(0).Kill()
	s.must(t, s.StartAgent(0))
	s.status(t, 0, "pbx1 drained after its agent's restart", func(st control.Status) bool {
		return node(st, "pbx1").Drained && node(st, "pbx1").SIP == "up" && node(st, "pbx2").Fit && node(st, "pbx3").Fit
	})
	s.done(t, 2, "undrain", "pbx1")
	for i := range s.Nodes() {
		s.status(t, i, "pbx1 undrained", func(st control.Status) bool { return !node(st, "pbx1").Drained && node(st, "pbx1").Fit })
	}

	moved := lab.Now()
	if out := s.done(t, 0, "drain", "pbx2"); !strings.HasPrefix(out, "pbx2 is drained; vip2: pbx2 -> pbx1 in ") {
		t.Errorf("drain of another node says %q", out)
	}
	s.hears(t, 1, "pbx1", moved)
	s.silent(t, 1, moved, 200*time.Millisecond)
	s.done(t, 1, "undrain")
	watch(500 * time.Millisecond) // nothing fails back by itself
}

func (s *site) killedPBX(t *testing.T, at time.Duration) {
	s.PBX(0).Kill()
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 500*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
}

// silentHost: the takeover takes a lease and a little, and nothing moves when the host
// comes back.
func (s *site) silentHost(t *testing.T, at time.Duration) {
	s.must(t, s.Cut(s.Node(0)))
	s.comesBack(t, at, s.Restore)
}

func (s *site) pulledCable(t *testing.T, at time.Duration) {
	s.must(t, s.PullCable(s.Node(0)))
	s.comesBack(t, at, s.PlugCable)
}

// minority: a holder that still reaches the router, but no peer through it.
func (s *site) minority(t *testing.T, _ time.Duration) {
	s.noRelay(t)
	at := lab.Now()
	s.isolate(t, 0)
	s.comesBack(t, at, func(h *lab.Host) error { return s.Heal() })
}

// comesBack follows pbx1 through a fault that hides it from the others, until some time
// after the fault. The lease is 1 s; pbx1 must let go before another node takes over.
func (s *site) comesBack(t *testing.T, at time.Duration, mend func(*lab.Host) error) {
	t.Helper()
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 2500*time.Millisecond)
	intervals, err := s.addresses.Intervals(s.VIPs[0])
	s.must(t, err)
	i := slices.IndexFunc(intervals, func(i lab.BoundInterval) bool { return i.Host == "pbx1" && (i.To == 0 || i.To > at) })
	if i < 0 || intervals[i].To == 0 || intervals[i].To-at > 1200*time.Millisecond {
		t.Errorf("pbx1, cut off at %v, did not let go at the end of its lease of 1 s: %+v", at, intervals)
	}
	s.must(t, mend(s.Node(0)))
	s.status(t, 0, "pbx1 back", func(st control.Status) bool { return st.Quorum && st.VIPs[0].Holder == "pbx3" && node(st, "pbx1").Fit })
	back := lab.Now()
	watch(time.Second)
	s.silent(t, 0, back, 20*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
}

func (s *site) terminated(t *testing.T, at time.Duration) {
	s.must(t, s.Agent(0).Signal(sigterm))
	s.handedOver(t, at)
}

func (s *site) stopped(t *testing.T, at time.Duration) {
	if out := s.done(t, 0, "stop"); out != "stopped\n" {
		t.Errorf("stop says %q", out)
	}
	s.handedOver(t, at)
	if c := s.cli(t, 0, "status"); c.code != 3 {
		t.Errorf("status of an agent that is gone: exit %d, want 3: %s", c.code, c.err)
	}
}

// handedOver: the agent of pbx1 ends properly and leaves no address behind.
func (s *site) handedOver(t *testing.T, at time.Duration) {
	t.Helper()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	if err := inOrder(s.Agent(0).Wait(ctx)); err != nil {
		t.Errorf("agent of pbx1: %v", err)
	}
	for _, addr := range s.VIPs {
		if slices.Contains(s.bound(t, addr), "pbx1") {
			t.Errorf("orphan: %v is bound on pbx1 after its agent ended", addr)
		}
	}
	s.hears(t, 0, "pbx3", at)
	s.silent(t, 0, at, 300*time.Millisecond)
	s.silent(t, 1, at, 20*time.Millisecond)
}
