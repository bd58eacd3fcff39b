package page

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Run is one fault that one tool went through, as seen from outside.
type Run struct {
	Tool, Version, Setting, Fault string

	At     time.Time // time of the fault, UTC
	Kernel string
	Load   float64 // load average of the machine over the last minute

	Stall     time.Duration // the observer's own longest stall
	Rejected  bool          // because of the stall
	Silence   time.Duration // the phone's longest time without an answer
	Moved     time.Duration // from the fault to the first answer by another node; 0: none came
	TwoOwners time.Duration // how long two machines answered for one address
	Takeovers int           // how often an address got another owner
	Course    []Stretch     // what the phone heard, from before the fault on
}

// Stretch is a period, counted from the fault, in which one node answered the phone, or
// no node ("-"). Periods with two owners ("both") lie over the others.
type Stretch struct {
	Who      string
	From, To time.Duration
}

// Nobody and Both mark Stretches that belong to no single node.
const (
	Nobody = "-"
	Both   = "both"
)

// Cost is what a tool uses at rest.
type Cost struct {
	Tool, Version, Setting string

	At      time.Time
	Kernel  string
	Load    float64
	Seconds float64 // length of the measurement
	Packets float64 // per second, sent by all nodes together
	Bytes   float64 // the same, with Ethernet headers
	CPU     float64 // percent of a core, of the costliest node
	MB      float64 // resident, of the costliest node
}

var runHeader = strings.Split("tool,version,setting,fault,at,kernel,load,stall_ms,rejected,silence_ms,moved_ms,two_owners_ms,takeovers,course_ms", ",")

func (r Run) record() []string {
	return []string{r.Tool, r.Version, r.Setting, r.Fault, r.At.Format(time.RFC3339), r.Kernel, float(r.Load), millis(r.Stall), strconv.FormatBool(r.Rejected),
		millis(r.Silence), millis(r.Moved), millis(r.TwoOwners), strconv.Itoa(r.Takeovers), courseText(r.Course)}
}

func parseRun(f []string) (Run, error) {
	var p parser
	r := Run{Tool: f[0], Version: f[1], Setting: f[2], Fault: f[3], At: p.time(f[4]), Kernel: f[5], Load: p.float(f[6]), Stall: p.millis(f[7]), Rejected: f[8] == "true",
		Silence: p.millis(f[9]), Moved: p.millis(f[10]), TwoOwners: p.millis(f[11]), Takeovers: int(p.float(f[12])), Course: p.course(f[13])}
	return r, p.err
}

var costHeader = strings.Split("tool,version,setting,at,kernel,load,seconds,packets_per_s,bytes_per_s,cpu_percent,rss_mb", ",")

func (c Cost) record() []string {
	return []string{c.Tool, c.Version, c.Setting, c.At.Format(time.RFC3339), c.Kernel, float(c.Load), float(c.Seconds), float(c.Packets), float(c.Bytes), float(c.CPU), float(c.MB)}
}

func parseCost(f []string) (Cost, error) {
	var p parser
	c := Cost{Tool: f[0], Version: f[1], Setting: f[2], At: p.time(f[3]), Kernel: f[4], Load: p.float(f[5]), Seconds: p.float(f[6]),
		Packets: p.float(f[7]), Bytes: p.float(f[8]), CPU: p.float(f[9]), MB: p.float(f[10])}
	return c, p.err
}

// ReadRuns reads a file of runs. A missing file has no runs.
func ReadRuns(path string) ([]Run, error) { return read(path, runHeader, parseRun) }

// ReadCosts reads a file of costs. A missing file has no costs.
func ReadCosts(path string) ([]Cost, error) { return read(path, costHeader, parseCost) }

// WriteRuns writes a file of runs in the order of the page.
func WriteRuns(path string, runs []Run) error {
	runs = slices.Clone(runs)
	slices.SortStableFunc(runs, func(a, b Run) int {
		return cmp.Or(compareCells(a.Tool, a.Setting, b.Tool, b.Setting), faultIndex(a.Fault)-faultIndex(b.Fault), a.At.Compare(b.At))
	})
	return write(path, runHeader, runs, Run.record)
}

// WriteCosts writes a file of costs in the order of the page.
func WriteCosts(path string, costs []Cost) error {
	costs = slices.Clone(costs)
	slices.SortStableFunc(costs, func(a, b Cost) int { return compareCells(a.Tool, a.Setting, b.Tool, b.Setting) })
	return write(path, costHeader, costs, Cost.record)
}

// Replace replaces the old runs of a cell (tool, setting, fault) by new ones.
func Replace(runs, cell []Run) []Run {
	runs = slices.DeleteFunc(slices.Clone(runs), func(r Run) bool {
		return slices.ContainsFunc(cell, func(n Run) bool { return n.Tool == r.Tool && n.Setting == r.Setting && n.Fault == r.Fault })
	})
	return append(runs, cell...)
}

// ReplaceCost does the same for a cost.
func ReplaceCost(costs []Cost, c Cost) []Cost {
	costs = slices.DeleteFunc(slices.Clone(costs), func(o Cost) bool { return o.Tool == c.Tool && o.Setting == c.Setting })
	return append(costs, c)
}

func read[T any](path string, header []string, parse func([]string) (T, error)) ([]T, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(records) == 0 || !slices.Equal(records[0], header) {
		return nil, fmt.Errorf("%s: want the columns %s", path, strings.Join(header, ","))
	}
	var list []T
	for i, f := range records[1:] {
		v, err := parse(f)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, i+2, err)
		}
		list = append(list, v)
	}
	return list, nil
}

// write replaces the file in one step, so that an interrupted run loses no figures.
func write[T any](path string, header []string, list []T, record func(T) []string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".figures-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	records := [][]string{header}
	for _, v := range list {
		records = append(records, record(v))
	}
	err = errors.Join(csv.NewWriter(file).WriteAll(records), file.Chmod(0o644), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(file.Name(), path)
}

func float(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// millis formats a time in ms, exact to the microsecond.
func millis(d time.Duration) string { return float(float64(d.Microseconds()) / 1000) }

// courseText formats a course as who:from:to, in whole ms, separated by spaces.
func courseText(course []Stretch) string {
	var words []string
	for _, s := range course {
		words = append(words, fmt.Sprintf("%s:%d:%d", s.Who, s.From.Milliseconds(), s.To.Milliseconds()))
	}
	return strings.Join(words, " ")
}

// parser reads fields and keeps the first error.
type parser struct{ err error }

func (p *parser) note(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *parser) float(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	p.note(err)
	return f
}

func (p *parser) millis(s string) time.Duration {
	return time.Duration(p.float(s)*1000+0.5) * time.Microsecond
}

func (p *parser) time(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	p.note(err)
	return t
}

func (p *parser) course(s string) (course []Stretch) {
	for _, w := range strings.Fields(s) {
		f := strings.Split(w, ":")
		if len(f) != 3 {
			p.note(fmt.Errorf("course %q: want who:from:to", w))
			return nil
		}
		from, err := strconv.Atoi(f[1])
		p.note(err)
		to, err := strconv.Atoi(f[2])
		p.note(err)
		course = append(course, Stretch{f[0], time.Duration(from) * time.Millisecond, time.Duration(to) * time.Millisecond})
	}
	return course
}
