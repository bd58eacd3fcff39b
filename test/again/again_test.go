package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// script answers each run of go test with the next of its outputs.
type script struct {
	t       *testing.T
	outputs []string
	asked   []string
	clock   time.Duration
	lost    time.Duration // stolen in each test
	calms   int
}

func (s *script) runner(out io.Writer, flags ...string) *runner {
	return &runner{
		flags: flags, out: out,
		goTest: func(args []string) (io.Reader, func() error, error) {
			s.asked = append(s.asked, strings.Join(args, " "))
			if len(s.outputs) == 0 {
				s.t.Fatalf("run once more: %v", s.asked)
			}
			events := s.outputs[0]
			s.outputs = s.outputs[1:]
			return strings.NewReader(events), func() error {
				if strings.Contains(events, `"Action":"fail"`) || strings.Contains(events, "exit 1") {
					return errors.New("exit status 1")
				}
				return nil
			}, nil
		},
		stolen: func(from, to time.Duration) (time.Duration, error) {
			if to <= from {
				s.t.Errorf("asked for the time from %v to %v", from, to)
			}
			return s.lost, nil
		},
		calm: func() error { s.calms++; return nil },
		now:  func() time.Duration { s.clock += time.Second; return s.clock },
	}
}

// ran returns the events of a package whose tests all ran. A test that fails is marked
// with a minus.
func ran(pkg string, tests ...string) (events string) {
	say := func(action, test, output string) {
		events += fmt.Sprintf("{\"Action\":%q,\"Package\":%q,\"Test\":%q,\"Output\":%q}\n", action, pkg, test, output)
	}
	all := "pass"
	for _, name := range tests {
		action := "pass"
		if strings.HasPrefix(name, "-") {
			name, action, all = name[1:], "fail", "fail"
		}
		say("run", name, "")
		say("run", name+"/sub", "")
		say("output", name+"/sub", "    word of "+name+"\n")
		say(action, name+"/sub", "")
		say(action, name, "")
	}
	say("output", "", strings.ToUpper(all)+"\n")
	say("output", "", map[string]string{"pass": "ok  ", "fail": "FAIL"}[all]+"\t"+pkg+"\n")
	say(all, "", "")
	return events
}

func TestAgain(t *testing.T) {
	died := strings.ReplaceAll(ran("p", "TestA", "-TestB"), `"Output":"FAIL\n"`, `"Output":"panic: no\n"`)
	unbuilt := "{\"ImportPath\":\"p\",\"Action\":\"build-output\",\"Output\":\"x.go:1: no\\n\"}\n" +
		"{\"Action\":\"fail\",\"Package\":\"p\",\"FailedBuild\":\"p\"}\n"
	for _, c := range []struct {
		name    string
		lost    time.Duration
		outputs []string
		want    bool
		asked   string // of the last run
		says    string
	}{
		{"all pass", time.Second, []string{ran("p", "TestA")}, true, "p q", ""},
		{"fails on its own", starving - 1, []string{ran("p", "-TestA")}, false, "p q", "p: TestA failed, while the host stole 299.999999ms"},
		{"starved once", starving, []string{ran("p", "TestA", "-TestB", "-TestC") + ran("q", "TestA"), ran("p", "TestB", "TestC")}, true, "-run ^(TestB|TestC)$ p", "word of TestB"},
		{"in two packages", starving, []string{ran("p", "-TestA") + ran("q", "-TestA"), ran("p", "TestA"), ran("q", "TestA")}, true, "-run ^(TestA)$ q", ""},
		{"one of two still starves", starving, []string{ran("p", "-TestA", "-TestB"), ran("p", "TestA", "-TestB"), ran("p", "TestB")}, true, "-run ^(TestB)$ p", ""},
		{"always fails", starving, []string{ran("p", "-TestA"), ran("p", "-TestA"), ran("p", "-TestA")}, false, "-run ^(TestA)$ p", ""},
		{"saw two holders", time.Minute, []string{strings.ReplaceAll(ran("p", "-TestA"), "word of", twoHolders)}, false, "p q", "p: TestA saw two holders"},
		{"two holders elsewhere", starving, []string{strings.ReplaceAll(ran("q", "TestA"), "word of", twoHolders) + ran("p", "-TestA"), ran("p", "TestA")}, true, "-run ^(TestA)$ p", ""},
		{"died in the middle", time.Minute, []string{died}, false, "p q", "p: failed outside its tests, or did not run them all"},
		{"failed outside its tests", time.Minute, []string{strings.ReplaceAll(ran("p", "TestA"), `"pass","Package":"p","Test":""`, `"fail","Package":"p","Test":""`)}, false, "p q", "p: failed outside"},
		{"does not build", time.Minute, []string{unbuilt}, false, "p q", "x.go:1: no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, out := &script{t: t, lost: c.lost, outputs: c.outputs}, &strings.Builder{}
			runs := len(s.outputs)
			got, err := s.runner(out).run([]string{"p", "q"})
			if got != c.want || err != nil {
				t.Errorf("passed %v, %v", got, err)
			}
			if len(s.outputs) > 0 || s.asked[len(s.asked)-1] != c.asked {
				t.Errorf("asked %q", s.asked)
			}
			if !strings.Contains(out.String(), c.says) || strings.Contains(out.String(), "PASS") {
				t.Errorf("said:\n%s", out)
			}
			if calm := runs > 1; calm != (s.calms > 0) {
				t.Errorf("waited for a calm %d times", s.calms)
			}
		})
	}
}

// TestUnknown: what cannot be judged has not passed.
func TestUnknown(t *testing.T) {
	for _, events := range []string{"exit 1\n", ran("p", "TestA") + "exit 1\n"} {
		s := &script{t: t, outputs: []string{events}}
		if passed, err := s.runner(io.Discard).run([]string{"p"}); passed || err == nil {
			t.Errorf("passed %v, %v", passed, err)
		}
	}
	s := &script{t: t, outputs: []string{ran("p", "-TestA")}}
	r := s.runner(io.Discard)
	r.stolen = func(_, _ time.Duration) (time.Duration, error) { return time.Minute, errors.New("no /proc/stat") }
	if passed, err := r.run([]string{"p"}); passed || err == nil {
		t.Errorf("passed %v, %v", passed, err)
	}
}

// TestWords: without -v only what failed is printed, with it everything at once.
func TestWords(t *testing.T) {
	for flag, want := range map[string]string{
		"-count=1": "    word of TestB\nFAIL\nFAIL\tp\n",
		"-v":       "    word of TestA\n    word of TestB\nFAIL\nFAIL\tp\n",
	} {
		s, out := &script{t: t, outputs: []string{ran("p", "TestA", "-TestB")}}, &strings.Builder{}
		if _, err := s.runner(out, flag).run([]string{"p"}); err != nil {
			t.Error(err)
		}
		if said, _, _ := strings.Cut(out.String(), "p: TestB failed"); said != want {
			t.Errorf("%s said\n%s, want\n%s", flag, said, want)
		}
	}
}
