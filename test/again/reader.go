package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
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

// promises are the words with which tests tell of a broken promise that holds on starved
// cores too.
var promises = []string{
	"two holders: ", "wrong answer: ", "not leased: ", "lease history: ", "epochs: ", "foreign address: ", "orphan: ",
	"found another one in the critical section", "entered under epoch", "after one of epoch",
}

// testRun is one run of a test, subtests and all.
type testRun struct {
	name     string
	from, to time.Duration // on the boot clock; to is when go test told, which may be a little late
	result   string        // pass, skip, fail, or empty: it did not end
	broken   string        // the words of a promise that it saw broken
}

// packageRun is one run of a package.
type packageRun struct {
	name   string
	tests  []*testRun // the failed ones are run anew, so only those at the top
	whole  bool       // its test binary came to its end
	result string
	said   map[string]string // by test, what is not printed yet
}

func (p *packageRun) test(name string) *testRun {
	name, _, _ = strings.Cut(name, "/")
	if i := slices.IndexFunc(p.tests, func(t *testRun) bool { return t.name == name }); i >= 0 {
		return p.tests[i]
	}
	p.tests = append(p.tests, &testRun{name: name})
	return p.tests[len(p.tests)-1]
}

// reader reads the events of one go test and prints what it would without -json.
type reader struct {
	out      io.Writer
	verbose  bool // without it a test that passes says nothing
	now      func() time.Duration
	packages []*packageRun
}

func (r *reader) read(events io.Reader) error {
	for lines := bufio.NewReader(events); ; {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				r.take(e)
			} else {
				fmt.Fprintf(r.out, "%s", line)
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

func (r *reader) of(pkg string) *packageRun {
	if i := slices.IndexFunc(r.packages, func(p *packageRun) bool { return p.name == pkg }); i >= 0 {
		return r.packages[i]
	}
	r.packages = append(r.packages, &packageRun{name: pkg, said: map[string]string{}})
	return r.packages[len(r.packages)-1]
}

func (r *reader) take(e event) {
	switch {
	case e.Package == "": // of a build
		fmt.Fprint(r.out, e.Output)
	case e.Test == "":
		r.takePackage(r.of(e.Package), e)
	default:
		r.takeTest(r.of(e.Package), e)
	}
}

func (r *reader) takePackage(p *packageRun, e event) {
	switch e.Action {
	case "output":
		if r.verbose || e.Output != "PASS\n" {
			fmt.Fprint(r.out, e.Output)
		}
		p.whole = p.whole || e.Output == "FAIL\n" || e.Output == "PASS\n" // the last word of testing.M.Run
	case "pass", "skip", "fail":
		p.result = e.Action
		for _, said := range p.said { // by tests that did not end
			fmt.Fprint(r.out, said)
		}
	}
}

func (r *reader) takeTest(p *packageRun, e event) {
	top := !strings.Contains(e.Test, "/")
	t := p.test(e.Test)
	switch e.Action {
	case "run", "cont":
		if top {
			t.from = r.now()
		}
	case "output":
		for _, words := range promises {
			if strings.Contains(e.Output, words) {
				t.broken = words
			}
		}
		if r.verbose {
			fmt.Fprint(r.out, e.Output)
		} else if !strings.HasPrefix(e.Output, "=== ") {
			p.said[e.Test] += e.Output
		}
	case "pass", "skip", "fail":
		if e.Action == "fail" {
			fmt.Fprint(r.out, p.said[e.Test])
		}
		delete(p.said, e.Test)
		if top {
			t.to, t.result = r.now(), e.Action
		}
	}
}
