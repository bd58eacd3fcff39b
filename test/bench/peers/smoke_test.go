package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/test/bench/page"
)

// TestSmoke takes sipalive through two faults, once each, as `make bench` would. It
// checks that the benchmark works and that its figures reach the files and the page, not
// how fast sipalive was. keepalived and ucarp are installed only for `make bench`.
func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	project(t, dir)
	for flag, value := range map[*string]string{out: dir, faults: "planned-move,partition"} {
		old := *flag
		*flag = value
		t.Cleanup(func() { *flag = old })
	}
	*runs = 1
	r := &record{b: t}
	r.measure("sipalive", "100ms", page.Faults)
	f, err := page.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	clear := map[string]bool{}
	for _, run := range f.Runs {
		clear[run.Fault] = clear[run.Fault] || !run.Rejected
		t.Logf("%s: silence %v, moved after %v, rejected %t", run.Fault, run.Silence, run.Moved, run.Rejected)
		if run.TwoOwners > 0 {
			t.Errorf("%s: two owners for %v", run.Fault, run.TwoOwners)
		}
		switch {
		case run.Fault == "planned-move" && (run.Takeovers != 1 || run.Moved == 0 || run.Course[0].Who != "pbx1" || run.Course[len(run.Course)-1].Who != "pbx3"):
			t.Errorf("a move from pbx1 to pbx3 was seen as %+v", run)
		case run.Fault == "partition" && (run.Takeovers != 0 || run.Moved != 0):
			t.Errorf("a partition with a gateway that relays moved something: %+v", run)
		}
	}
	if len(f.Runs) < 2 {
		t.Errorf("%d runs, want both faults", len(f.Runs))
	}
	text, err := os.ReadFile(filepath.Join(dir, page.Benchmarks))
	if shown := strings.Contains(string(text), "| planned move | **"); err != nil || shown != clear["planned-move"] {
		t.Errorf("the page shows a planned move: %t, one was seen clearly: %t, %v\n%s", shown, clear["planned-move"], err, text)
	}
}

// project makes the files into which the figures are written.
func project(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(page.RunsFile)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{page.Benchmarks, page.Readme} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestShortestLease: the shortest lease is about 2.2 heartbeats.
func TestShortestLease(t *testing.T) {
	for beat, want := range map[time.Duration]time.Duration{100: 211, 50: 111, 10: 31} {
		if got := shortest(beat * time.Millisecond); got != want*time.Millisecond {
			t.Errorf("heartbeat %d ms: lease %v, want %d ms", beat, got, want)
		}
	}
}
