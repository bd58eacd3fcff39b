package page

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

const root = "../../.."

// TestPageIsItsFigures: docs and README say what follows from the raw figures.
func TestPageIsItsFigures(t *testing.T) {
	files, err := stale(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) > 0 {
		if *update {
			if err := Write(root); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("%v say something else than %s and %s (go test ./test/bench/page -update writes them anew)", files, RunsFile, CostsFile)
	}
}

// some returns figures in which every cell of every table differs.
func some() Figures {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	run := func(tool, setting, fault string, silence, owners float64, course ...Stretch) Run {
		at = at.Add(time.Second)
		return Run{Tool: tool, Version: "1." + tool, Setting: setting, Fault: fault, At: at, Kernel: "6.18", Load: 0.5, Stall: ms(1.5),
			Silence: ms(silence), Moved: ms(silence + 1), TwoOwners: ms(owners), Takeovers: 1, Course: course}
	}
	rejected := run("sipalive", "100ms", "silent-host", 900, 0)
	rejected.Rejected = true
	calm := run("sipalive", "100ms", "loss-20", 70, 0)
	calm.Takeovers = 0
	return Figures{
		Runs: []Run{
			run("sipalive", "100ms", "silent-host", 150, 0, Stretch{home, ms(-50), 0}, Stretch{Nobody, 0, ms(150)}, Stretch{"pbx3", ms(150), ms(200)}),
			run("sipalive", "100ms", "silent-host", 160, 0),
			run("sipalive", "100ms", "silent-host", 190, 0),
			rejected,
			run("keepalived", "100ms", "silent-host", 310, 60, Stretch{home, ms(-50), 0}, Stretch{Nobody, 0, ms(310)}, Stretch{Both, ms(400), ms(460)}),
			run("keepalived", "100ms", "silent-host", 330, 0),
			run("sipalive", "default", "planned-move", 3, 0),
			run("keepalived", "default", "planned-stop", 50, 0),
			run("ucarp", "default", "planned-stop", 3700, 1600),
			calm,
			run("keepalived", "100ms", "loss-20", 700, 450),
		},
		Costs: []Cost{{Tool: "sipalive", Version: "1", Setting: "100ms", At: at, Kernel: "6.18", Seconds: 15, Packets: 150.4, Bytes: 15300, CPU: 0.954, MB: 21.34}},
	}
}

func TestGolden(t *testing.T) {
	f := some()
	got := map[string]string{"line.txt": Line(f.Runs[:4]) + "\n"}
	for _, b := range f.blocks() {
		got[b.name+".md"] = b.text
	}
	names, drawings := f.Plots()
	for _, n := range names {
		if n == "peers-course-100ms.svg" || n == "peers-silent-host.svg" {
			got[n] = drawings[n]
		}
	}
	for name, text := range got {
		golden(t, name, text)
	}
	if len(got) != 10 {
		t.Errorf("%d texts, want 10", len(got))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// TestPlotsAreXML: a browser shows nothing of an SVG that is not well-formed.
func TestPlotsAreXML(t *testing.T) {
	_, drawings := some().Plots()
	for name, text := range drawings {
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
	}
}

// TestFilesKeepFigures: reading gives what was written.
func TestFilesKeepFigures(t *testing.T) {
	f, dir := some(), t.TempDir()
	runs, costs := filepath.Join(dir, "runs.csv"), filepath.Join(dir, "costs.csv")
	if err := errors.Join(WriteRuns(runs, f.Runs), WriteCosts(costs, f.Costs)); err != nil {
		t.Fatal(err)
	}
	gotRuns, err := ReadRuns(runs)
	gotCosts, err2 := ReadCosts(costs)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if err := WriteRuns(runs+"2", gotRuns); err != nil {
		t.Fatal(err)
	}
	again, err := ReadRuns(runs + "2")
	if d := cmp.Diff(gotRuns, again); d != "" || err != nil {
		t.Errorf("runs, written again: %v\n%s", err, d)
	}
	if len(gotRuns) != len(f.Runs) || gotRuns[0].Tool != "sipalive" || gotRuns[0].Setting != "default" {
		t.Errorf("%d runs, the first %+v, want %d, the page's first tool and setting first", len(gotRuns), gotRuns[0], len(f.Runs))
	}
	if d := cmp.Diff(f.Costs, gotCosts); d != "" {
		t.Errorf("costs (-written +read):\n%s", d)
	}
}

func TestFilesRefused(t *testing.T) {
	for text, message := range map[string]string{
		"a,b\n": "want the columns tool,version,setting,at,kernel,load,seconds,packets_per_s,bytes_per_s,cpu_percent,rss_mb",
		strings.Join(costHeader, ",") + "\nt,v,s,2026-01-02T03:04:05Z,k,1,x,1,1,1,1\n": "line 2: strconv.ParseFloat: parsing \"x\": invalid syntax",
	} {
		path := filepath.Join(t.TempDir(), "costs.csv")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCosts(path); err == nil || !strings.HasSuffix(err.Error(), message) {
			t.Errorf("read %q: %v, want ... %s", text, err, message)
		}
	}
	if runs, err := ReadRuns(filepath.Join(t.TempDir(), "none.csv")); err != nil || runs != nil {
		t.Errorf("no file: %v, %v", runs, err)
	}
}

// TestReplace: a cell that is measured again replaces only its own old runs.
func TestReplace(t *testing.T) {
	f := some()
	again := Run{Tool: "sipalive", Setting: "100ms", Fault: "silent-host", Silence: time.Second}
	got := Figures{Runs: Replace(f.Runs, []Run{again})}
	if runs, rejected := got.of("sipalive", "100ms", "silent-host"); len(runs) != 1 || rejected != 0 || len(got.Runs) != len(f.Runs)-3 {
		t.Errorf("%d runs of the cell, %d rejected, %d of all", len(runs), rejected, len(got.Runs))
	}
	if costs := ReplaceCost(f.Costs, Cost{Tool: "sipalive", Setting: "100ms", CPU: 1}); len(costs) != 1 || costs[0].CPU != 1 {
		t.Errorf("costs %+v", costs)
	}
}

func TestQuantiles(t *testing.T) {
	var runs []Run
	for i := range 10 {
		runs = append(runs, Run{Silence: time.Duration(10-i) * time.Second})
	}
	if m, p99 := median(runs, silenceOf), quantile(runs, 0.99, silenceOf); m != 5500*time.Millisecond || p99 != 10*time.Second {
		t.Errorf("median %v, p99 %v, want 5.5s and 10s", m, p99)
	}
	if m := median(runs[:3], silenceOf); m != 9*time.Second {
		t.Errorf("median of three %v, want 9s", m)
	}
	if r := middle(runs[:3]); r.Silence != 9*time.Second {
		t.Errorf("middle run %v, want that of 9s", r.Silence)
	}
}

func TestDurationsAsOneReadsThem(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0", 3040 * time.Microsecond: "3.0 ms", 31 * time.Millisecond: "31 ms", 999400 * time.Microsecond: "999 ms", 3124 * time.Millisecond: "3.12 s"} {
		if got := duration(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}
