// Package planted tests the tests: it plants each known bug into the real code, and the
// simulator or a directed test must catch it.
package planted

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	seeds = flag.Int("planted.seeds", 60, "seeds to try for each bug")
	only  = flag.String("planted.only", "", "this bug alone")
)

// bug is a mutation of one place in the code: old must occur there exactly once.
type bug struct {
	name, file, old, new string
	by                   string // the test of its package that catches it, where simulated runs hardly ever do
	pkg                  string // the package with the bug, if not ./elect
}

// TestPlantedBugs builds the simulator once per bug, with the changed file laid over the
// real one, and lets it hunt.
func TestPlantedBugs(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	soundWithout(t, root)
	for _, b := range bugs {
		if *only != "" && b.name != *only {
			continue
		}
		t.Run(strings.ReplaceAll(b.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			overlay := plant(t, root, b)
			if b.by == "" {
				runs := "leases"
				if b.file == survivor || b.file == relay {
					runs = "survivors"
				}
				out := hunt(t, root, overlay, runs)
				fmt.Printf("%-50s %s\n", b.name, short(out))
				if strings.HasPrefix(out, "caught") {
					return
				}
				t.Errorf("%s survives %d seeds: a fault is missing in the simulator", b.name, *seeds)
				return
			}
			test, script, _ := strings.Cut(b.by, "/")
			failed := directed(t, root, overlay, b.inPackage(), test, script)
			if failed != b.by && !strings.HasPrefix(failed, b.by+"/") {
				t.Errorf("%s survives %s: %q failed", b.name, b.by, failed)
				return
			}
			fmt.Printf("%-50s caught by %s\n", b.name, failed)
		})
	}
}

func (b bug) inPackage() string { return cmp.Or(b.pkg, "./elect") }

// soundWithout: the tests that have to catch a bug pass where there is none.
func soundWithout(t *testing.T, root string) {
	t.Helper()
	type group struct{ pkg, test string } // the scripts of one test, or the tests of a package
	named := map[group][]string{}
	for _, b := range bugs {
		switch test, script, is := strings.Cut(b.by, "/"); {
		case is:
			g := group{b.inPackage(), test}
			named[g] = append(named[g], script)
		case test != "":
			g := group{pkg: b.inPackage()}
			named[g] = append(named[g], test)
		}
	}
	for g, names := range named {
		test, scripts := g.test, strings.Join(names, "|")
		if test == "" {
			test, scripts = scripts, ""
		}
		if failed := directed(t, root, "", g.pkg, test, scripts); failed != "" {
			t.Fatalf("%s fails without a bug", failed)
		}
	}
}

func short(s string) string {
	s = strings.TrimSpace(s)
	return s[:min(len(s), 150)]
}

// plant writes the changed file, and an overlay that puts it into the build.
func plant(t *testing.T, root string, b bug) string {
	path := filepath.Join(root, b.file)
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), b.old); n != 1 {
		t.Fatalf("%s: %q occurs %d times in %s, want once", b.name, b.old, n, b.file)
	}
	dir := t.TempDir()
	mutated := filepath.Join(dir, "mutated.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(src), b.old, b.new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, j, 0o644); err != nil {
		t.Fatal(err)
	}
	return overlay
}

func hunt(t *testing.T, root, overlay, runs string) string {
	bin := filepath.Join(filepath.Dir(overlay), "hunt")
	build := exec.Command("go", "build", "-overlay", overlay, "-o", bin, "./test/sim/hunt")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.Command(bin, fmt.Sprint(*seeds), runs).CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out)
}

// directed runs tests of a package, or scripts of a test, and returns the first that
// fails. The names of several are joined by bars.
func directed(t *testing.T, root, overlay, pkg, tests, scripts string) (failed string) {
	t.Helper()
	run := "^(" + tests + ")$"
	if scripts != "" {
		run += "/^(" + scripts + ")$"
	}
	cmd := exec.Command("go", "test", "-vet=off", "-overlay="+overlay, "-count=1", "-failfast", "-run", run, pkg)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "[no tests to run]") {
		t.Fatalf("%s has no %s", pkg, run)
	}
	if err == nil {
		return ""
	}
	for _, l := range strings.Split(string(out), "\n") {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "--- FAIL: ") {
			failed = strings.Fields(l)[2] // a script's line follows that of its test
		}
	}
	if failed == "" {
		t.Fatalf("go test: %v\n%s", err, out)
	}
	return failed
}
