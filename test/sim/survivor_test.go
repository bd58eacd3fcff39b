package sim_test

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"sipalive/test/sim"
)

var survivorsFlag = flag.Int("sim.survivors", 120, "seeds around the router")

// TestSurvivors lets hosts die and switches split, with a router that all, some or no
// nodes reach.
func TestSurvivors(t *testing.T) { survive(t, sim.NewSurvivors, *survivorsFlag) }

// TestRelayedSurvivors: two owners never show, if the router relays, survivor is "auto",
// and nothing worse happens than this: hosts die or reboot, ports and switches split
// while all nodes reach the router, and the router loses up to a fifth of its frames.
func TestRelayedSurvivors(t *testing.T) { survive(t, sim.NewRelayed, *survivorsFlag/4) }

func survive(t *testing.T, draw func(seed uint64, nodes int) sim.Survivors, n int) {
	first, last := *firstFlag, *firstFlag+uint64(n)
	var trace func(string)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag+1
		trace = func(l string) { fmt.Println(l) }
	}
	var all total
	var sum sim.SurvivorResult
	start := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	seeds := make(chan uint64)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range seeds {
				r := draw(seed, 0).Run(trace)
				all.add(r.Result)
				mu.Lock()
				sum.Add(r)
				for _, v := range r.Violations {
					t.Errorf("seed %d: %s\nreplay: go test ./test/sim -run '^%s$' -v -sim.seed=%d", seed, v, t.Name(), seed)
				}
				mu.Unlock()
			}
		})
	}
	for seed := first; seed < last && !t.Failed(); seed++ {
		seeds <- seed
	}
	close(seeds)
	wg.Wait()
	fmt.Printf("%s: %d seeds, %.0f simulated hours, %d takeovers; survivors: %d took, %d outlived, %d became holders by lease; two owners seen by a router "+
		"that relays %d times, at most %s, by one that does not %d times, at most %s; in %s\n", t.Name(), last-first, all.simulated.Hours(), all.moves,
		sum.Taken, sum.InPlace, sum.Back, sum.Overlaps[0], sum.Longest[0], sum.Overlaps[1], sum.Longest[1], time.Since(start).Round(time.Second))
}
