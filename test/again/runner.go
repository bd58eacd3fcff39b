package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const (
	// starving is how much stolen time may fail a test that is in order. The bounds of
	// timed tests are wide enough for less. In a long test it is starvingShare of the
	// cores' time.
	starving      = 300 * time.Millisecond
	starvingShare = 100
	// mostRuns is how often one test runs at most.
	mostRuns = 3
)

// A runner runs tests, and runs those anew that starved.
type runner struct {
	flags     []string // of go test
	cores     int
	out       io.Writer
	goTest    func(args []string) (events io.Reader, wait func() error, err error)
	stolen    func(from, to time.Duration) (time.Duration, error) // by the host, from all cores
	awaitCalm func() error                                        // until the host steals less
	now       func() time.Duration                                // the boot clock
}

// failure is a test that failed, or no test and a package that failed otherwise.
type failure struct {
	pkg  string
	test *testRun
}

// run reports whether every test passed, if need be after it had starved. An error says
// that this cannot be known.
func (r *runner) run(packages []string) (passed bool, err error) {
	failed, err := r.first(packages)
	for runs := 1; err == nil && len(failed) > 0; runs++ {
		var starved bool
		if starved, err = r.judge(failed); err != nil || !starved || runs == mostRuns {
			return false, err
		}
		if err = r.awaitCalm(); err == nil {
			failed, err = r.anew(failed)
		}
	}
	return err == nil, err
}

// judge reports whether all failures may be the host's, and prints why for each.
func (r *runner) judge(failed []failure) (starved bool, err error) {
	starved = true
	for _, f := range failed {
		why := ""
		switch {
		case f.test == nil:
			why, starved = "failed outside its tests, or did not run them all", false
		case f.test.broken != "":
			why, starved = fmt.Sprintf("%s broke a promise (%q)", f.test.name, f.test.broken), false
		default:
			lost, err := r.stolen(f.test.from, f.test.to)
			if err != nil {
				return false, err
			}
			why = fmt.Sprintf("%s failed, while the host stole %v", f.test.name, lost)
			starved = starved && lost >= max(starving, (f.test.to-f.test.from)*time.Duration(r.cores)/starvingShare)
		}
		fmt.Fprintf(r.out, "%s: %s\n", f.pkg, why)
	}
	return starved, nil
}

// first runs all tests of the packages.
func (r *runner) first(packages []string) (failed []failure, err error) {
	ran, err := r.test(nil, packages)
	for _, p := range ran {
		if p.result != "fail" {
			continue
		}
		before := len(failed)
		for _, t := range p.tests {
			if t.result == "fail" {
				failed = append(failed, failure{p.name, t})
			}
		}
		if !p.whole || len(failed) == before {
			failed = append(failed, failure{pkg: p.name})
		}
	}
	return failed, err
}

// anew runs the failed tests, and only those. Each has to pass, and so has the package.
func (r *runner) anew(failed []failure) (still []failure, err error) {
	for len(failed) > 0 {
		pkg, names := failed[0].pkg, []string(nil)
		failed = slices.DeleteFunc(failed, func(f failure) bool {
			if f.pkg == pkg {
				names = append(names, f.test.name)
			}
			return f.pkg == pkg
		})
		only := "^(" + strings.Join(names, "|") + ")$"
		fmt.Fprintf(r.out, "%s: run anew: %s\n", pkg, only)
		ran, err := r.test([]string{"-count=1", "-run", only}, []string{pkg})
		if err != nil {
			return nil, err
		}
		before := len(still)
		for _, name := range names {
			if t := ran[0].test(name); t.result != "pass" {
				still = append(still, failure{pkg, t})
			}
		}
		if ran[0].result != "pass" && (!ran[0].whole || len(still) == before) {
			still = append(still, failure{pkg: pkg})
		}
	}
	return still, nil
}

// test runs go test once, which has to tell of the end of each package.
func (r *runner) test(flags, packages []string) ([]*packageRun, error) {
	events, wait, err := r.goTest(slices.Concat(r.flags, flags, packages))
	if err != nil {
		return nil, err
	}
	v := &reader{out: r.out, verbose: slices.Contains(r.flags, "-v"), now: r.now}
	if err := v.read(events); err != nil {
		return nil, err
	}
	if err := wait(); err != nil {
		return nil, fmt.Errorf("go test: %w", err)
	}
	ended := slices.DeleteFunc(v.packages, func(p *packageRun) bool { return p.result == "" })
	if len(ended) != len(packages) {
		return nil, fmt.Errorf("go test told how %d packages ended, of %d", len(ended), len(packages))
	}
	return ended, nil
}
