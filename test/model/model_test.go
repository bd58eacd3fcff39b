package model

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var longFlag = flag.Bool("model.long", false, "search the bounds that are too large for CI as well")

// bounds limit a search in which every state is visited. plants are the bugs that it must
// find, and reaches the states that it must get to: a model that cannot reach a state
// proves nothing about it.
type bounds struct {
	name    string
	flags   []string
	long    bool
	plants  []string
	reaches []string
}

var searches = []bounds{
	{
		name:  "two candidates from a cold start, restarts",
		flags: []string{"-DE=2"},
		plants: []string{
			"LEASE_FROM_RECEIPT", "LEASE_FROM_ONE_ASK", "VOTES_COUNTED_TWICE", "EPOCH_NOT_COMPARED", "NOT_BARRED",
			"HELD_NOT_LOOKED_AT", "ANSWERED_BEFORE_STORED", "OWN_VOTE_NOT_STORED", "RESTORED_NOT_HONOURED", "ASKED_FORGOTTEN",
			"RELEASE_OF_ANY_EPOCH", "LATE_ANSWER_COUNTS", "VOTES_OUTLIVE",
		},
		reaches: []string{"TAKEOVER", "HELD_ON", "RAISED"},
	},
	{
		name:    "a planned move, restarts, a third node follows",
		flags:   []string{"-DE=3", "-DMOVE"},
		plants:  []string{"RELEASE_BEFORE_UNBIND", "SUCCESSOR_FROM_RECEIPT", "VOTED_WITHOUT_VOTE", "ANY_READY_WILL_DO"},
		reaches: []string{"MOVED", "FOLLOWED", "HELD_ON", "RAISED"},
	},
	{
		name:    "a voter loses its runtime directory, restarts",
		flags:   []string{"-DE=2", "-DFORGETS=2"},
		plants:  []string{"NO_QUIET_TIME", "QUIET_FORGOTTEN"},
		reaches: []string{"FORGOT"},
	},
	{
		name:    "a candidate loses its runtime directory",
		flags:   []string{"-DE=2", "-DFORGETS=0", "-DNO_RESTART"},
		plants:  []string{"INSTANCE_KEPT", "RELEASE_WITHOUT_INSTANCE"},
		reaches: []string{"FORGOT"},
	},
	{name: "a candidate loses its runtime directory, restarts", flags: []string{"-DE=2", "-DFORGETS=0"}, long: true},
	{name: "two candidates from a cold start, a third epoch", flags: []string{"-DE=3", "-DNO_RESTART"}, long: true},
	{name: "a planned move, a voter loses its runtime directory", flags: []string{"-DE=3", "-DMOVE", "-DFORGETS=2", "-DNO_RESTART"}, long: true},
}

// The limits of a pan search. A search that reaches one says so, and is no proof.
const (
	deepest  = 100_000
	megabyte = 1900
)

// TestModel searches every state within each of the bounds.
func TestModel(t *testing.T) {
	for _, b := range searches {
		if b.long && !*longFlag {
			continue
		}
		t.Run(word(b.name), func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			dir, out := search(t, "-O2", b.flags)
			if errs := find(t, out, `errors: (\d+)`); errs != "0" {
				t.Fatalf("%s errors:\n%s\n%s", errs, out, trail(t, dir, b.flags))
			}
			if why := incomplete(out); why != "" {
				t.Fatalf("not every state was searched: %s:\n%s", why, out)
			}
			fmt.Printf("model, %s: %s states, %s deep, all searched, no violation, in %s\n", b.name,
				find(t, out, `(\S+) states, stored`), find(t, out, `depth reached (\d+)`), time.Since(start).Round(time.Second))
		})
	}
}

// TestPlanted: each bug planted in the model is found, as a second holder or as an epoch
// that does not rise.
func TestPlanted(t *testing.T) {
	violate(t, "PLANT", "found", func(b bounds) []string { return b.plants })
}

// TestReached: each search gets to the states in which the model must be judged.
func TestReached(t *testing.T) {
	violate(t, "REACH", "reached", func(b bounds) []string { return b.reaches })
}

// violate expects a violated assertion for each of the names, defined as macro, and
// prints the result.
func violate(t *testing.T, macro, says string, names func(bounds) []string) {
	for _, b := range searches {
		for _, name := range names(b) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				_, out := search(t, "-O1", append(slices.Clone(b.flags), "-D"+macro+"="+name))
				if !strings.Contains(out, "assertion violated") || find(t, out, `errors: (\d+)`) != "1" {
					t.Fatalf("%s %s: no violation:\n%s", macro, name, out)
				}
				fmt.Printf("model, %s: %s, %s after %s states\n", b.name, name, says, find(t, out, `(\S+) states, stored`))
			})
		}
	}
}

// TestIncomplete: a search that is cut short does not pass as a proof.
func TestIncomplete(t *testing.T) {
	_, shallow := search(t, "-O1", searches[0].flags, "-m20")
	_, small := search(t, "-DMEMLIM=150", searches[0].flags)
	for _, out := range []string{shallow, small} {
		if incomplete(out) == "" {
			t.Errorf("passes for complete:\n%s", out)
		}
	}
}

// incomplete returns what kept pan from searching every state, "" if nothing did.
func incomplete(out string) string {
	for _, why := range []string{"max search depth too small", "Search not completed", "time limit", "out of memory", "MEMLIM bound", "truncated"} {
		if strings.Contains(out, why) {
			return why
		}
	}
	if !strings.Contains(out, "Full statespace search") || !strings.Contains(out, "assertion violations	+") {
		return "no full search"
	}
	return ""
}

func word(s string) string { return strings.NewReplacer(" ", "_", ",", "").Replace(s) }

func find(t *testing.T, out, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no %q in what the search said:\n%s", pattern, out)
	}
	n, err := strconv.ParseFloat(m[1], 64) // large ones are written as 1.5e+07
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

// search lets spin generate the search of the model with these definitions, builds it and
// runs it. The model is one process, so there is no order of processes to reduce.
func search(t *testing.T, option string, defines []string, limits ...string) (dir, out string) {
	t.Helper()
	dir = t.TempDir()
	src, err := os.ReadFile("lease.pml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lease.pml"), src, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, dir, "spin", append(slices.Clone(defines), "-a", "lease.pml")...); strings.Contains(out, "Error:") {
		t.Fatalf("spin:\n%s", out)
	}
	run(t, dir, "gcc", "-w", "-DSAFETY", "-DNOREDUCE", fmt.Sprintf("-DMEMLIM=%d", megabyte), option, "-o", "pan", "pan.c")
	return dir, run(t, dir, "./pan", append([]string{fmt.Sprintf("-m%d", deepest), "-w24"}, limits...)...)
}

// trail returns the steps to the violation that the search in dir found.
func trail(t *testing.T, dir string, defines []string) string {
	t.Helper()
	return run(t, dir, "spin", append(slices.Clone(defines), "-t", "-p", "lease.pml")...)
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v (make tools installs spin and gcc)\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
