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
	// timed tests are wide enough for less.
	starving = 300 * time.Millisecond
	// mostRuns is how often one test runs at most.
	mostRuns = 3
)

// A runner runs tests, and runs those anew that starved.
type runner struct {
	flags  []string // of go test
	out    io.Writer
	goTest func(args []string) (events io.Reader, wait func() error, err error)
	stolen func(from, to time.Duration) (time.Duration, error) // by the host, from all cores; on the boot clock
	calm   func() error                                        // waits until the host steals no more
	now    func() time.Duration                                // the boot clock
}

// run reports whether every test passed, if need be after it had starved. An error says
// that this cannot be known.
func (r *runner) run(packages []string) (passed bool, err error) {
	failed, err := r.test(r.flags, packages)
	for runs := 1; err == nil && len(failed) > 0; runs++ {
		starved, err := r.starved(failed)
		if err != nil || !starved || runs == mostRuns {
			return false, err
		}
		if err := r.calm(); err != nil {
			return false, err
		}
		failed, err = r.anew(failed)
		if err != nil {
			return false, err
		}
	}
	return err == nil, err
}

// starved reports whether each failure may be the host's.
func (r *runner) starved(failed []failure) (all bool, err error) {
	all = true
	for _, f := range failed {
		if f.test == "" {
			fmt.Fprintf(r.out, "%s: failed outside its tests, or did not run them all\n", f.pkg)
			all = false
			continue
		}
		if f.twoHolders {
			fmt.Fprintf(r.out, "%s: %s saw two holders\n", f.pkg, f.test)
			all = false
			continue
		}
		lost, err := r.stolen(f.from, f.to)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(r.out, "%s: %s failed, while the host stole %v of the cores' time\n", f.pkg, f.test, lost)
		all = all && lost >= starving
	}
	return all, nil
}

// anew runs the failed tests, and only those.
func (r *runner) anew(failed []failure) (still []failure, err error) {
	byPackage, packages := map[string][]string{}, []string(nil)
	for _, f := range failed {
		if byPackage[f.pkg] == nil {
			packages = append(packages, f.pkg)
		}
		byPackage[f.pkg] = append(byPackage[f.pkg], f.test)
	}
	for _, pkg := range packages {
		only := "^(" + strings.Join(byPackage[pkg], "|") + ")$"
		fmt.Fprintf(r.out, "%s: run anew: %s\n", pkg, only)
		f, err := r.test(append(slices.Clip(r.flags), "-run", only), []string{pkg})
		if err != nil {
			return nil, err
		}
		still = append(still, f...)
	}
	return still, nil
}

// test runs go test once.
func (r *runner) test(flags, packages []string) ([]failure, error) {
	events, wait, err := r.goTest(append(slices.Clip(flags), packages...))
	if err != nil {
		return nil, err
	}
	v := &reader{out: r.out, verbose: slices.Contains(flags, "-v"), now: r.now}
	if err := v.read(events); err != nil {
		return nil, err
	}
	if err := wait(); err != nil && len(v.failed) == 0 {
		return nil, fmt.Errorf("go test: %w, and no test failed", err)
	}
	return v.failed, nil
}
