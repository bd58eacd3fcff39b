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
	"slices"
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
	if out := directed(t, root, "", "./elect", ""); *only == "" && out != "not caught" {
		t.Fatalf("elect's tests fail without a bug: %s", out)
	}
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
			out := directed(t, root, overlay, cmp.Or(b.pkg, "./elect"), b.by)
			fmt.Printf("%-50s %s\n", b.name, out)
			if !strings.HasPrefix(out, "caught") {
				t.Errorf("%s survives %s", b.name, b.by)
			}
		})
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

// directed runs one test of a package, or all.
func directed(t *testing.T, root, overlay, pkg, test string) string {
	test, sub, _ := strings.Cut(test, "/")
	args := []string{"test", "-vet=off", "-overlay=" + overlay, "-count=1", "-failfast", "-run", "^" + test + "/^" + sub, pkg}
	if drawsCases(t, filepath.Join(root, pkg)) {
		args = append(args, "-rapid.nofailfile") // that a planted bug is found is no finding
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "not caught"
	}
	var failed []string
	for _, l := range strings.Split(string(out), "\n") {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "--- FAIL: ") {
			failed = append(failed, strings.Fields(l)[2])
		}
	}
	if len(failed) == 0 {
		t.Fatalf("go test: %v\n%s", err, out)
	}
	return "caught by " + failed[len(failed)-1]
}

// drawsCases reports whether tests of a package use rapid.
func drawsCases(t *testing.T, dir string) bool {
	tests, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	return slices.ContainsFunc(tests, func(path string) bool {
		src, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(src), `"pgregory.net/rapid"`)
	})
}
