package sim_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"sipalive/test/sim"
)

var survivorsFlag = flag.Int("sim.survivors", 600, "seeds around the router")

// TestSurvivors lets hosts die and switches split around a router that all,
// some or none of the nodes reach.
func TestSurvivors(t *testing.T) {
	first, last := *firstFlag, *firstFlag+uint64(*survivorsFlag)
	var trace func(string)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag+1
		trace = func(l string) { fmt.Println(l) }
	}
	var all total
	var sum sim.SurvivorResult
	start := time.Now()
	for seed := first; seed < last; seed++ {
		s := sim.NewSurvivors(seed, 0)
		r := s.Run(trace)
		all.add(r.Result)
		sum.Taken += r.Taken
		sum.InPlace += r.InPlace
		sum.Back += r.Back
		for i := range r.Overlaps {
			sum.Overlaps[i] += r.Overlaps[i]
			sum.Longest[i] = max(sum.Longest[i], r.Longest[i])
		}
		sum.Alone = max(sum.Alone, r.Alone)
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s\nreplay: go test ./test/sim -run '^TestSurvivors$' -v -sim.seed=%d", seed, v, seed)
		}
		if t.Failed() {
			break
		}
	}
	fmt.Printf("%s: %d seeds, %.0f simulated hours, %d takeovers; survivors: %d took, %d outlived, %d became holders by lease; two owners seen by a router "+
		"that relays %d times, at most %s, by one that does not %d times, at most %s; in %s\n", t.Name(), last-first, all.simulated.Hours(), all.moves,
		sum.Taken, sum.InPlace, sum.Back, sum.Overlaps[0], sum.Longest[0], sum.Overlaps[1], sum.Longest[1], time.Since(start).Round(time.Second))
}
