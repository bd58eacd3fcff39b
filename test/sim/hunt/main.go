// Command hunt runs simulated seeds until one shows a violation, and prints how many it
// took. Package planted builds it with a bug in elect.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"sipalive/test/sim"
)

func main() {
	seeds, err := strconv.ParseUint(os.Args[1], 10, 32)
	if err != nil || len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hunt SEEDS leases|survivors")
		os.Exit(2)
	}
	runs := []struct {
		name string
		run  func(seed uint64) sim.Result
	}{
		{"three nodes", func(s uint64) sim.Result { return sim.NewScenario(s, 3, 5*time.Minute).Run(nil) }},
		{"other sizes", func(s uint64) sim.Result { return sim.NewScenario(s, 0, 5*time.Minute).Run(nil) }},
		{"voter lists", func(s uint64) sim.Result { return sim.NewLists(s).Run(nil) }},
		{"locks", func(s uint64) sim.Result { return sim.NewLocks(s).Run(nil) }},
		{"one fault", func(s uint64) sim.Result {
			return sim.Single{Scenario: sim.NewScenario(s, []int{3, 3, 4, 5}[s%4], 0), Rounds: 6}.Run(nil)
		}},
	}
	if os.Args[2] == "survivors" {
		runs = runs[:1]
		runs[0].name, runs[0].run = "survivors", func(s uint64) sim.Result { return sim.NewSurvivors(s, 0).Run(nil).Result }
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		for _, r := range runs {
			if res := caught(r.run, seed); len(res.Violations) > 0 {
				fmt.Printf("caught by %s after %d seeds: %s\n", r.name, seed, res.Violations[0])
				os.Exit(1)
			}
		}
	}
	fmt.Printf("not caught in %d seeds\n", seeds)
}

// caught counts a panic, whether of the machine or of the simulator's own limits, as a
// violation.
func caught(run func(uint64) sim.Result, seed uint64) (res sim.Result) {
	defer func() {
		if p := recover(); p != nil {
			res.Violations = []string{fmt.Sprint(p)}
		}
	}()
	return run(seed)
}
