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
	directed             bool   // simulated runs hardly ever catch it: tests of the bug's own package do
	pkg                  string // the package with the bug, if not ./elect
}

// TestPlantedBugs builds the simulator once per bug, with the changed file laid over the
// real one, and lets it hunt.
func TestPlantedBugs(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if out := directedTests(t, root, "", "./elect", "."); *only == "" && out != "not caught" {
		t.Fatalf("elect's tests fail without a bug: %s", out)
	}
	for _, b := range bugs {
		if *only != "" && b.name != *only {
			continue
		}
		t.Run(strings.ReplaceAll(b.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			overlay := plant(t, root, b)
			if !b.directed {
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
			run := "."
			if b.file == survivor {
				run = survivorTests
			}
			out := directedTests(t, root, overlay, cmp.Or(b.pkg, "./elect"), run)
			fmt.Printf("%-50s %s\n", b.name, out)
			if !strings.HasPrefix(out, "caught") {
				t.Errorf("%s survives the directed tests", b.name)
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

// survivorTests match those tests of elect that exercise a survivor.
const survivorTests = "Surviv|Sign|Outlive|TwoVoters|Lease"

func directedTests(t *testing.T, root, overlay, pkg, run string) string {
	cmd := exec.Command("go", "test", "-overlay="+overlay, "-count=1", "-failfast", "-run", run, pkg)
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
