package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// failure is a test that failed, subtests and all, from its start to its end.
type failure struct {
	pkg, test  string // no test: the package failed otherwise
	from, to   time.Duration
	twoHolders bool
}

// twoHolders is how every test words that two nodes answered for one VIP.
const twoHolders = "two holders: "

// reader prints the events as go test would without -json, and keeps what failed.
type reader struct {
	out     io.Writer
	verbose bool
	now     func() time.Duration
	failed  []failure

	begun map[string]time.Duration // by package and test
	said  map[string]string        // not printed yet: without -v, a test that passes says nothing
	two   map[string]bool          // tests that saw two holders
	whole map[string]bool          // packages that ran all their tests
	bad   map[string]bool          // packages with a failed test
}

func (r *reader) read(events io.Reader) error {
	r.begun, r.said = map[string]time.Duration{}, map[string]string{}
	r.two, r.whole, r.bad = map[string]bool{}, map[string]bool{}, map[string]bool{}
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line)
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) take(e event) {
	key := e.Package + " " + e.Test
	test, _, sub := strings.Cut(e.Test, "/")
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "run":
		r.begun[key] = r.now()
	case "output":
		switch {
		case r.verbose, e.Test == "" && e.Output != "PASS\n":
			fmt.Fprint(r.out, e.Output)
		case e.Test != "":
			r.said[key] += e.Output
		}
		if strings.Contains(e.Output, twoHolders) {
			r.two[e.Package+" "+test] = true
		}
		if e.Test == "" && e.Output == "FAIL\n" {
			r.whole[e.Package] = true // a test binary's last word, unless it ended early
		}
	case "fail":
		fmt.Fprint(r.out, r.said[key])
		delete(r.said, key)
		switch {
		case test != "" && !sub:
			r.bad[e.Package] = true
			r.failed = append(r.failed, failure{e.Package, test, r.begun[key], r.now(), r.two[key]})
		case test == "" && !(r.bad[e.Package] && r.whole[e.Package]):
			r.failed = append(r.failed, failure{pkg: e.Package})
		}
	case "pass", "skip":
		delete(r.said, key)
	}
}
