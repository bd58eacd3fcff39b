package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sipalive/test/lab"
	"sipalive/test/shipped"
)

var (
	seedFlag = flag.Uint64("chaos.seed", 0, "seed of the faults; 0: a random one")
	forFlag  = flag.Duration("chaos.for", 2*time.Minute, "how long faults go on")

	binary string // sipalive as it is shipped
)

func TestMain(m *testing.M) { os.Exit(shipped.Main(m, "chaos", &binary)) }

// TestChaos runs three agents under random faults, then heals everything, and judges by
// what was seen from outside.
func TestChaos(t *testing.T) {
	seed := *seedFlag
	for seed == 0 {
		seed = rand.Uint64N(1_000_000_000)
	}
	replay := fmt.Sprintf("go test ./test/chaos -run 'TestChaos$' -v -chaos.seed=%d -chaos.for=%v", seed, *forFlag)
	fmt.Printf("chaos: seed %d; replay with: %s\n", seed, replay)
	// The checks are those of leases. A survivor's epochs may repeat in a split (design
	// §4.6), so survivor_after is too long for any survivor. Heartbeats are relayed.
	r := begin(t, "[timing]\nhold_down = \"1s\"\nsurvivor_after = \"1h\"\n")
	defer func() {
		if t.Failed() {
			r.explain(t, replay)
		}
	}()
	list := schedule(seed, *forFlag)
	r.play(t, list, *forFlag)
	r.heal(t)
	r.finish(t)
	for v := range r.VIPs {
		e := r.evidence(t, v)
		wrong, notes := judge(e)
		for _, w := range wrong {
			t.Error(w)
		}
		for _, n := range notes {
			t.Log("noted: ", n)
		}
		last := uint64(0)
		for _, c := range e.claims {
			last = max(last, c.epoch)
		}
		t.Logf("%s: %d tenures by ARP, epoch %d, %d words of nodes (%d operations), phone: %v",
			e.vip, len(e.tenures), last, len(e.claims), len(history(e.claims)), r.phones[v].Report(r.start, 0))
	}
	t.Logf("%d faults in %v, %d ARP rounds", len(list), *forFlag, r.arp.Asked())
}

// explain logs what led to a failure: faults, observations, agents.
func (r *run) explain(t *testing.T, replay string) {
	for v, addr := range r.VIPs {
		for _, x := range r.arp.Tenures(addr) {
			t.Logf("vip%d: ARP by %s %.3f to %.3f, %d answers", v+1, x.Host, (x.From - r.start).Seconds(), (x.To - r.start).Seconds(), x.Answers)
		}
	}
	events, err := r.addresses.Events()
	for _, e := range events {
		if e.At >= r.start {
			t.Logf("%9.3f  %s %v bound %v", (e.At - r.start).Seconds(), e.Host, e.Addr, e.Bound)
		}
	}
	r.mu.Lock()
	for _, line := range r.log {
		t.Log(line)
	}
	r.mu.Unlock()
	t.Logf("address observer: %v; zero of the log is %v\nreplay: %s", err, r.start, replay)
	if dir := os.Getenv("CHAOS_KEEP"); dir != "" {
		_ = os.CopyFS(filepath.Join(dir, lab.Now().String()), os.DirFS(r.DataDir()))
	}
}
