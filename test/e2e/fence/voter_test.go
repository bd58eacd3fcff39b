package fence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestRestartedVoter: a voter that is restarted grants at once. One of the three voters
// is frozen here, so every renewal of the holder needs the restarted voter's vote, and so
// does the move right after. A quiet time would cost the lease, as it does for a voter
// that finds no grants.
func TestRestartedVoter(t *testing.T) {
	s := start(t, "")
	must(t, s.Agent(2).Stop())
	ways := []struct {
		name string
		end  func()
	}{
		{"SIGUSR2", func() {
			ctx, cancel := cluster.Deadline(patience)
			defer cancel()
			must(t, s.Agent(1).Signal(unix.SIGUSR2))
			must(t, s.Agent(1).Wait(ctx))
		}},
		{"kill -9", func() { s.Agent(1).Kill() }},
	}
	for _, way := range ways {
		attempts := 5
		for attempts > 0 && !s.voterRestart(way.name, way.end) {
			t.Log("the machine stood still: once more")
			attempts--
		}
		if attempts == 0 {
			t.Fatal("the machine stands still too often to tell anything")
		}
	}
	s.voterWithoutGrants()
}

// voterRestart ends and starts pbx2's agent, and moves vip1 there and back. It returns
// false if something was missed and the machine itself stood still: then time stolen from
// pbx1 or pbx2 may have ended a lease.
func (s *site) voterRestart(name string, end func()) bool {
	s.t.Helper()
	before, begun := s.status(0).VIPs, lab.Now()
	end()
	must(s.t, s.StartAgent(1))
	if s.status(1).Quiet {
		s.t.Errorf("%s: the voter found its grants and is quiet", name)
	}
	restarted := lab.Now()
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	_, miss := s.Client(0).Do(ctx, control.Command{Kind: control.Move, VIP: "vip1", Node: "pbx2"})
	took := lab.Now() - restarted
	if miss == nil {
		miss = s.hearsWithin(2*lease, 0, "pbx2")
	}
	moved := lab.Now()
	if miss != nil || took > lease/2 {
		miss = fmt.Errorf("the move to the restarted voter took %v: %v", took, miss)
	}
	s.failback(0)
	if miss == nil {
		time.Sleep(2 * lease) // grants from before the restart have ended by then
		moved = lab.Now()
	}
	var stall time.Duration
	for v, phone := range s.phones {
		r := phone.Report(begun, moved-50*time.Millisecond)
		s.t.Logf("%s: moved %v after the restart; %s: %v", name, took.Round(time.Millisecond), cluster.VIPName(v), r)
		stall = max(stall, r.Stall)
		if r.Silence > lease/2 {
			miss = errors.Join(miss, fmt.Errorf("a phone heard nothing for %v", r.Silence))
		}
	}
	if after := s.status(0).VIPs; after[0].Epoch != before[0].Epoch+2 || after[1].Epoch != before[1].Epoch {
		miss = errors.Join(miss, fmt.Errorf("epochs %d and %d, were %d and %d", after[0].Epoch, after[1].Epoch, before[0].Epoch, before[1].Epoch))
	}
	if miss == nil {
		return true
	}
	stood := max(stall, s.stood(begun, moved))
	miss = fmt.Errorf("%s: %w; the machine stood still for %v", name, miss, stood)
	if stood > lease/4 {
		s.t.Log(miss)
		return false
	}
	s.t.Error(miss)
	return true
}

// voterWithoutGrants checks that this test can tell a quiet voter from another.
func (s *site) voterWithoutGrants() {
	s.t.Helper()
	before, begun := s.status(0).VIPs[0], lab.Now()
	s.Agent(1).Kill()
	must(s.t, os.Remove(filepath.Join(s.RunDir(1), "runtime.json")))
	must(s.t, s.StartAgent(1))
	ctx, cancel := cluster.Deadline(patience)
	defer cancel()
	must(s.t, lab.WaitFor(ctx, "another epoch, since a quiet voter renews nothing", func() error {
		if s.status(0).VIPs[0].Epoch == before.Epoch {
			return errors.New("the epoch is the same")
		}
		return nil
	}))
	s.t.Logf("without its grants: %v", s.phones[0].Report(begun, lab.Now()-50*time.Millisecond))
}
