package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// script answers each run of go test with the next of its outputs, and each question for
// stolen time with the next of its times.
type script struct {
	t       *testing.T
	outputs []string
	lost    []time.Duration
	asked   []string
	between []string
	clock   time.Duration // a second more with each look
	calms   int
	ended   error // of go test
}

func (s *script) runner(out io.Writer, flags ...string) *runner {
	return &runner{
		flags: flags, cores: 2, out: out,
		goTest: func(args []string) (io.Reader, func() error, error) {
			s.asked = append(s.asked, strings.Join(args, " "))
			if len(s.outputs) == 0 {
				s.t.Fatalf("run once more: %q", s.asked)
			}
			events := s.outputs[0]
			s.outputs = s.outputs[1:]
			return strings.NewReader(events), func() error { return s.ended }, nil
		},
		stolen: func(from, to time.Duration) (time.Duration, error) {
			s.between = append(s.between, fmt.Sprintf("%v-%v", from, to))
			if len(s.lost) == 0 {
				return 0, errors.New("no /proc/stat")
			}
			lost := s.lost[0]
			s.lost = s.lost[1:]
			return lost, nil
		},
		awaitCalm: func() error { s.calms++; return nil },
		now:       func() time.Duration { s.clock += time.Second; return s.clock },
	}
}

func line(action, pkg, test, output string) string {
	return fmt.Sprintf("{\"Action\":%q,\"Package\":%q,\"Test\":%q,\"Output\":%q}\n", action, pkg, test, output)
}

// ran returns the events of a package whose tests all ran. A test with a minus fails, one
// with a tilde is skipped.
func ran(pkg string, tests ...string) (events string) {
	all := "pass"
	for _, name := range tests {
		action := "pass"
		switch name[0] {
		case '-':
			action, all, name = "fail", "fail", name[1:]
		case '~':
			action, name = "skip", name[1:]
		}
		events += line("run", pkg, name, "") + line("output", pkg, name, "=== RUN   "+name+"\n") + line("run", pkg, name+"/sub", "") +
			line("output", pkg, name+"/sub", "    word of "+name+"\n") + line(action, pkg, name+"/sub", "") + line(action, pkg, name, "")
	}
	return events + line("output", pkg, "", strings.ToUpper(all)+"\n") + end(pkg, all)
}

func end(pkg, action string) string {
	return line("output", pkg, "", map[string]string{"pass": "ok  ", "fail": "FAIL"}[action]+"\t"+pkg+"\n") + line(action, pkg, "", "")
}

func TestAgain(t *testing.T) {
	const enough, little = starving, starving - 1
	times := func(d ...time.Duration) []time.Duration { return d }
	died := line("run", "p", "TestA", "") + line("output", "p", "TestA", "panic: no\n") + line("fail", "p", "TestA", "") + end("p", "fail")
	outside := strings.Replace(ran("p", "TestA"), `"pass","Package":"p","Test":""`, `"fail","Package":"p","Test":""`, 1)
	promise := func(events string) string { return strings.ReplaceAll(events, "word of", promises[0]) }
	unbuilt := "{\"ImportPath\":\"p\",\"Action\":\"build-output\",\"Output\":\"x.go:1: no\\n\"}\n" + end("p", "fail")
	for _, c := range []struct {
		name    string
		lost    []time.Duration
		outputs []string
		want    bool
		asked   string // what go test was last asked
		says    string
	}{
		{"all pass", nil, []string{ran("p", "TestA", "~TestB")}, true, "-f p", ""},
		{"fails on its own", times(little), []string{ran("p", "-TestA")}, false, "-f p", "p: TestA failed, while the host stole 299.999999ms"},
		{"starved once", times(enough, enough), []string{ran("p", "TestA", "-TestB", "-TestC"), ran("p", "TestB", "TestC")}, true, "-f -count=1 -run ^(TestB|TestC)$ p", "word of TestB"},
		{"one starved, one not", times(enough, little), []string{ran("p", "-TestA", "-TestB")}, false, "-f p", ""},
		{"one not, one starved", times(little, enough), []string{ran("p", "-TestA", "-TestB")}, false, "-f p", ""},
		{"one of two still starves", times(enough, enough, enough), []string{ran("p", "-TestA", "-TestB"), ran("p", "TestA", "-TestB"), ran("p", "TestB")}, true, "-f -count=1 -run ^(TestB)$ p", ""},
		{"fails on its own after it starved", times(enough, 0), []string{ran("p", "-TestA"), ran("p", "-TestA")}, false, "-f -count=1 -run ^(TestA)$ p", ""},
		{"always starves", times(enough, enough, enough), []string{ran("p", "-TestA"), ran("p", "-TestA"), ran("p", "-TestA")}, false, "-f -count=1 -run ^(TestA)$ p", ""},
		{"breaks a promise", times(enough), []string{promise(ran("p", "-TestA"))}, false, "-f p", `p: TestA broke a promise ("two holders: ")`},
		{"breaks a promise, then one starves", times(enough), []string{strings.ReplaceAll(ran("p", "-TestA", "-TestB"), "word of TestA", promises[0])}, false, "-f p", "broke"},
		{"the words in a test that passes", times(enough), []string{strings.ReplaceAll(ran("p", "TestA", "-TestB"), "word of TestA", promises[0]), ran("p", "TestB")}, true, "-f -count=1 -run ^(TestB)$ p", ""},
		{"skipped when run anew", times(enough, 0), []string{ran("p", "-TestA"), ran("p", "~TestA")}, false, "-f -count=1 -run ^(TestA)$ p", ""},
		{"gone when run anew", times(enough, 0), []string{ran("p", "-TestA"), ran("p")}, false, "-f -count=1 -run ^(TestA)$ p", ""},
		{"died in the middle", times(enough), []string{died}, false, "-f p", "p: failed outside its tests, or did not run them all"},
		{"died when run anew", times(enough, enough), []string{ran("p", "-TestA"), strings.Replace(ran("p", "TestA"), line("output", "p", "", "PASS\n")+end("p", "pass"), end("p", "fail"), 1)}, false, "-f -count=1 -run ^(TestA)$ p", "p: failed outside"},
		{"failed outside its tests", times(enough), []string{outside}, false, "-f p", "p: failed outside"},
		{"does not build", times(enough), []string{unbuilt}, false, "-f p", "x.go:1: no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, out := &script{t: t, lost: c.lost, outputs: c.outputs}, &strings.Builder{}
			runs := len(s.outputs)
			got, err := s.runner(out, "-f").run([]string{"p"})
			if got != c.want || err != nil {
				t.Errorf("passed %v, %v", got, err)
			}
			if len(s.asked) != runs || s.asked[runs-1] != c.asked {
				t.Errorf("asked %q", s.asked)
			}
			if !strings.Contains(out.String(), c.says) {
				t.Errorf("said:\n%s", out)
			}
			if s.calms != runs-1 {
				t.Errorf("waited for a calm %d times before %d runs", s.calms, runs)
			}
		})
	}
}

// TestPackages: of several packages each runs its own failed tests anew.
func TestPackages(t *testing.T) {
	s := &script{t: t, lost: []time.Duration{starving, starving},
		outputs: []string{ran("p", "-TestA") + ran("q", "TestA", "-TestB"), ran("p", "TestA"), ran("q", "TestB")}}
	passed, err := s.runner(io.Discard).run([]string{"p", "q"})
	want := []string{"p q", "-count=1 -run ^(TestA)$ p", "-count=1 -run ^(TestB)$ q"}
	if !passed || err != nil || !reflect.DeepEqual(s.asked, want) {
		t.Errorf("passed %v, %v, asked %q", passed, err, s.asked)
	}
}

// TestShare: the longer a test, the more must have been stolen. The time for which a
// parallel test waits for its turn is not its own.
func TestShare(t *testing.T) {
	events := line("run", "p", "TestA", "") + line("pause", "p", "TestA", "") + line("run", "p", "TestB", "") +
		line("cont", "p", "TestA", "") + line("fail", "p", "TestA", "") + line("fail", "p", "TestB", "") +
		line("output", "p", "", "FAIL\n") + end("p", "fail")
	for _, c := range []struct {
		a, b   time.Duration // stolen
		passed bool
	}{{2 * time.Second, 6 * time.Second, true}, {2*time.Second - 1, 6 * time.Second, false}, {2 * time.Second, 6*time.Second - 1, false}} {
		s := &script{t: t, lost: []time.Duration{c.a, c.b}, outputs: []string{events, ran("p", "TestA", "TestB")}}
		r := s.runner(io.Discard)
		r.now = func() time.Duration { s.clock += 100 * time.Second; return s.clock }
		passed, err := r.run([]string{"p"})
		if want := []string{"5m0s-6m40s", "3m20s-8m20s"}; passed != c.passed || err != nil || !reflect.DeepEqual(s.between, want) {
			t.Errorf("%v and %v: passed %v, %v, looked at %v", c.a, c.b, passed, err, s.between)
		}
	}
}

// TestUnknown: what cannot be judged has not passed.
func TestUnknown(t *testing.T) {
	for name, s := range map[string]*script{
		"no end":         {outputs: []string{strings.TrimSuffix(ran("p", "TestA"), end("p", "pass"))}},
		"nothing":        {outputs: []string{""}},
		"killed":         {outputs: []string{ran("p", "TestA")}, ended: errors.New("signal: killed")},
		"nothing anew":   {outputs: []string{ran("p", "-TestA"), ""}, lost: []time.Duration{starving}},
		"steal not told": {outputs: []string{ran("p", "-TestA")}},
	} {
		s.t = t
		if passed, err := s.runner(io.Discard).run([]string{"p"}); passed || err == nil {
			t.Errorf("%s: passed %v, %v", name, passed, err)
		}
	}
	s := &script{t: t, outputs: []string{ran("p", "-TestA")}, lost: []time.Duration{starving}} // and q, which died with go test
	if passed, err := s.runner(io.Discard).run([]string{"p", "q"}); passed || err == nil {
		t.Errorf("a package is missing: passed %v, %v", passed, err)
	}
}

// TestWords: without -v only what failed is printed, with it everything at once.
func TestWords(t *testing.T) {
	hangs := line("run", "p", "TestC", "") + line("output", "p", "TestC", "goroutine 1\n")
	events := "no JSON\n" + ran("p", "TestA", "~TestB")
	events = strings.Replace(events, line("output", "p", "", "PASS\n")+end("p", "pass"), hangs+end("p", "fail"), 1)
	for flag, want := range map[string]string{
		"-count=1": "no JSON\nFAIL\tp\ngoroutine 1\n",
		"-v":       "no JSON\n=== RUN   TestA\n    word of TestA\n=== RUN   TestB\n    word of TestB\ngoroutine 1\nFAIL\tp\n",
	} {
		s, out := &script{t: t, outputs: []string{events}}, &strings.Builder{}
		if _, err := s.runner(out, flag).run([]string{"p"}); err != nil {
			t.Error(err)
		}
		if said, _, _ := strings.Cut(out.String(), "p: failed outside"); said != want {
			t.Errorf("%s said\n%s, want\n%s", flag, said, want)
		}
	}
}

// TestReal runs the real go test on tests that fail once, die, hang, or end the process.
func TestReal(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AGAIN_DIR", dir)
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Chdir(dir)
	for name, text := range map[string]string{
		"go.mod": "module real\n\ngo 1.24\n",
		"once/a_test.go": `package a
import ("os"; "testing")
func TestOnce(t *testing.T) {
	if f, err := os.OpenFile(os.Getenv("AGAIN_DIR")+"/once.ran", os.O_CREATE|os.O_EXCL, 0o600); err == nil { f.Close(); t.Error("the first time") }
}
func TestGood(t *testing.T) {}
`,
		"panics/a_test.go": "package a\nimport \"testing\"\nfunc TestBad(t *testing.T) { t.Error(\"no\") }\nfunc TestPanic(t *testing.T) { panic(\"no\") }\nfunc TestNotRun(t *testing.T) {}\n",
		"hangs/a_test.go":  "package a\nimport \"testing\"\nfunc TestBad(t *testing.T) { t.Error(\"no\") }\nfunc TestHangs(t *testing.T) { select {} }\nfunc TestNotRun(t *testing.T) {}\n",
		"exits/a_test.go":  "package a\nimport (\"os\"; \"testing\")\nfunc TestBad(t *testing.T) { t.Error(\"no\") }\nfunc TestExits(t *testing.T) { os.Exit(1) }\nfunc TestNotRun(t *testing.T) {}\n",
		"empty/a.go":       "package a\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		packages []string
		want     bool
		says     string
	}{
		{[]string{"./once", "./empty"}, true, "real/once: run anew: ^(TestOnce)$"},
		{[]string{"./panics"}, false, "real/panics: failed outside its tests, or did not run them all"},
		{[]string{"./hangs"}, false, "real/hangs: failed outside its tests, or did not run them all"},
		{[]string{"./exits"}, false, "real/exits: failed outside its tests, or did not run them all"},
	} {
		out, began := &strings.Builder{}, time.Now()
		r := &runner{flags: []string{"-timeout=2s", "-vet=off"}, cores: 2, out: out, goTest: goTest,
			stolen: func(from, to time.Duration) (time.Duration, error) {
				if from <= 0 || to < from {
					t.Errorf("looked from %v to %v", from, to)
				}
				return time.Hour, nil
			},
			awaitCalm: func() error { return nil }, now: func() time.Duration { return time.Since(began) }}
		if passed, err := r.run(c.packages); passed != c.want || err != nil || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: passed %v, %v:\n%s", c.packages, passed, err, out)
		}
	}
}

// TestPromises: the words are still those of the tests.
func TestPromises(t *testing.T) {
	var all strings.Builder
	err := filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "../again") {
			return err
		}
		src, err := os.ReadFile(path)
		all.Write(src)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range promises {
		if !strings.Contains(all.String(), words) {
			t.Errorf("no test says %q", words)
		}
	}
}
