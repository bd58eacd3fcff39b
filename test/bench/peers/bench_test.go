package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/test/bench/page"
	"sipalive/test/lab"
)

// BenchmarkPeers measures every tool under every setting, and writes figures and page.
// Tools whose adverts are a second apart mostly wait, so they run at the same time, in
// two labs each. All others have the machine to themselves, except in the minutes of
// loss, which all tools of two settings go through side by side.
func BenchmarkPeers(b *testing.B) {
	r := &record{b: b}
	halves := [][]page.Fault{page.Faults[:5], page.Faults[5:]}
	together(func(tool string) {
		var both sync.WaitGroup
		for _, half := range halves {
			both.Go(func() { r.measure(tool, "default", half) })
		}
		both.Wait()
	}, "keepalived", "ucarp")
	for _, setting := range page.Settings {
		r.measure("sipalive", setting, page.Faults)
		if setting != "default" {
			r.measure("keepalived", setting, page.Faults)
		}
	}
	for _, pair := range [][]string{{"default", "100ms"}, {"50ms", "10ms"}} {
		together(func(setting string) {
			together(func(tool string) { r.losses(tool, setting) }, page.Tools...)
		}, pair...)
	}
	b.ReportMetric(0, "ns/op")
}

// together runs do for several names at once.
func together(do func(string), names ...string) {
	var all sync.WaitGroup
	for _, n := range names {
		all.Go(func() { do(n) })
	}
	all.Wait()
}

// record writes the figures.
type record struct {
	b  testing.TB
	mu sync.Mutex
}

// exists reports whether to measure a tool under a setting. ucarp has only the default
// setting.
func exists(tool, setting string) bool {
	return wanted(*tools, tool) && wanted(*settings, setting) && (tool != "ucarp" || setting == "default")
}

// applies reports whether to measure a fault for a tool. ucarp does not watch services.
func applies(tool, fault string) bool {
	return wanted(*faults, fault) && (tool != "ucarp" || !strings.HasPrefix(fault, "pbx-"))
}

// measure takes one tool through faults other than loss, in one lab. It measures the cost
// at rest before the very first fault.
func (r *record) measure(name, setting string, list []page.Fault) {
	steady := wanted(*faults, "steady") && list[0] == page.Faults[0]
	var todo []page.Fault
	for _, f := range list {
		if f.Loss == 0 && applies(name, f.Name) {
			todo = append(todo, f)
		}
	}
	if !exists(name, setting) || len(todo) == 0 && !steady {
		return
	}
	r.with(name, setting, func(s *site) error {
		if steady {
			if err := r.steady(s, name, setting); err != nil {
				return err
			}
		}
		if len(todo) == 0 {
			return nil
		}
		if err := s.observe(0); err != nil {
			return err
		}
		for _, f := range todo {
			err := s.home()
			if err == nil {
				err = r.cell(s, name, setting, f.Name)
			}
			if err != nil {
				r.b.Errorf("%s, %s, %s: %v", name, setting, f.Name, err)
			}
		}
		return nil
	})
}

// with runs a tool while do runs. An error fails the benchmark, and what was measured
// until then is kept.
func (r *record) with(name, setting string, do func(*site) error) {
	t, err := start(name, setting)
	if err == nil {
		s := &site{tool: t, Lab: t.data()}
		err = errors.Join(do(s), t.close())
	}
	if err != nil {
		r.b.Errorf("%s, %s: %v", name, setting, err)
	}
}

// cell repeats a fault until enough runs were seen clearly.
func (r *record) cell(s *site, name, setting, fault string) error {
	var list []page.Run
	for good, tries := 0, 0; good < *runs && tries < 2**runs; tries++ {
		run, err := s.once(fault)
		if errors.Is(err, errRefused) {
			fmt.Printf("  %-11s %-8s %-13s %v\n", name, setting, fault, err)
			if err := s.home(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			if len(list) > 0 {
				err = errors.Join(err, r.keep(list))
			}
			return err
		}
		run.Tool, run.Version, run.Setting, run.Fault = name, s.version(), setting, fault
		list = append(list, run)
		if !run.Rejected {
			good++
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("%w, not once", errRefused)
	}
	return r.keep(list)
}

// errRefused means that a fault could not be made, e.g. a planned move while the address
// had no holder. It is tried again.
var errRefused = errors.New("not begun")

// once makes a fault while everything is at home, and watches it to its end.
func (s *site) once(name string) (run page.Run, err error) {
	f := makers[name]
	time.Sleep(before + rand.N(s.heartbeat())) // at a random moment between two heartbeats
	run = conditions()
	at := lab.Now()
	if err := f.begin(s); err != nil {
		return run, fmt.Errorf("%w: %w", errRefused, err)
	}
	to, err := s.ends(f, at)
	if err != nil {
		return run, err
	}
	report := s.phone.Report(at-before, to)
	run.Silence, run.Stall = report.Silence, report.Stall
	run.Rejected = s.blind(report)
	if moved, ok := s.moved(at); ok && moved < to {
		run.Moved = moved - at
	}
	run.Course = s.course(at, to, 2*time.Millisecond)
	if run.Takeovers, err = s.takeovers(at, to); err != nil {
		return run, err
	}
	if err := s.home(); err != nil {
		return run, err
	}
	both, sum, err := s.twoOwners(at)
	run.TwoOwners, run.Course = sum, append(run.Course, both...)
	return run, err
}

// ends waits for the effect of a fault, ends the fault, and returns the time until which
// the phone's questions count.
func (s *site) ends(f fault, at time.Duration) (to time.Duration, err error) {
	const answers = 20 * time.Millisecond // answers that may still be on their way
	if f.passes {
		time.Sleep(s.lasts())
		err := errors.Join(f.end(s), s.settle())
		time.Sleep(answers)
		return lab.Now() - answers, err
	}
	err = wait("another holder", func(context.Context) error {
		if last, ok := s.phone.Last(); !ok || last.Sent < at || last.Server == s.Node(0).Name {
			return fmt.Errorf("the phone has heard %q", last.Server)
		}
		return nil
	})
	time.Sleep(after + answers)
	to = lab.Now() - answers
	return to, errors.Join(err, f.end(s))
}

// lasts returns how long a fault takes that passes by itself.
func (s *site) lasts() time.Duration {
	if s.heartbeat() >= 200*time.Millisecond {
		return 6 * time.Second
	}
	return 2 * time.Second
}

// losses takes one tool through the minutes of packet loss.
func (r *record) losses(name, setting string) {
	for _, f := range page.Faults {
		if f.Loss == 0 || !exists(name, setting) || !applies(name, f.Name) {
			continue
		}
		r.with(name, setting, func(s *site) error {
			if err := s.observe(10 * time.Millisecond); err != nil {
				return err
			}
			list, err := s.lossy(f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
			for i := range list {
				list[i].Tool, list[i].Version, list[i].Setting, list[i].Fault = name, s.version(), setting, f.Name
			}
			return r.keep(list)
		})
	}
}

// lossy is one minute of packet loss, in spells. A spell in which the machine stood still
// for three heartbeats shows the effect of that, not of the loss. It becomes a rejected
// run of its own, and another spell replaces it. Without enough good spells there is no
// run.
func (s *site) lossy(f page.Fault) (list []page.Run, err error) {
	minute := conditions()
	good := 0
	for tries := 0; good < spells && tries < 5*spells; tries++ {
		if tries == 0 || list[tries-1].Rejected {
			if err := errors.Join(s.Loss(0), s.home(), s.Loss(f.Loss)); err != nil {
				return nil, err
			}
		}
		run, err := s.spell()
		if err != nil {
			return nil, err
		}
		list = append(list, run)
		if !run.Rejected {
			good++
		}
	}
	for _, run := range list {
		if !run.Rejected {
			minute.Silence, minute.Stall = max(minute.Silence, run.Silence), max(minute.Stall, run.Stall)
			minute.Takeovers, minute.TwoOwners = minute.Takeovers+run.Takeovers, minute.TwoOwners+run.TwoOwners
		}
	}
	list = slices.DeleteFunc(list, func(r page.Run) bool { return !r.Rejected })
	if good == spells {
		list = append(list, minute)
	}
	return list, s.Loss(0)
}

// spell is one part of that minute, under the current loss.
func (s *site) spell() (run page.Run, err error) {
	run = conditions()
	at := lab.Now()
	time.Sleep(minute / spells)
	to := lab.Now()
	report := s.phone.Report(at, to)
	run.Silence, run.Stall = report.Silence, report.Stall
	run.Rejected = run.Stall > 3*s.heartbeat()
	if run.Takeovers, err = s.takeovers(at, to); err != nil {
		return run, err
	}
	_, run.TwoOwners, err = s.twoOwners(at)
	return run, err
}

// steady measures what the tool uses before anybody asks it anything.
func (r *record) steady(s *site, name, setting string) error {
	var err error
	if s.addrs, err = s.ObserveAddresses(); err != nil {
		return err
	}
	defer s.addrs.Stop()
	if err := wait("the VIPs at home", func(ctx context.Context) error { return errors.Join(s.rest(ctx), s.held()) }); err != nil {
		return err
	}
	before, err := s.taken()
	if err != nil {
		return err
	}
	time.Sleep(atRest)
	now, err := s.taken()
	if err != nil {
		return err
	}
	c := conditions()
	seconds := (now.at - before.at).Seconds()
	cost := page.Cost{Tool: name, Version: s.version(), Setting: setting, At: c.At, Kernel: c.Kernel, Load: c.Load, Seconds: seconds,
		Packets: float64(now.packets-before.packets) / seconds, Bytes: float64(now.bytes-before.bytes) / seconds}
	for i, u := range now.usage {
		cost.CPU = max(cost.CPU, 100*(u.CPU-before.usage[i].CPU).Seconds()/seconds)
		cost.MB = max(cost.MB, float64(u.Resident)/(1<<20))
	}
	return r.keepCost(cost)
}

// held checks that each VIP is only on its home node.
func (s *site) held() error {
	for v, vip := range s.vips() {
		if h, err := s.holders(vip); err != nil || len(h) != 1 || h[0] != s.Node(v).Name {
			return fmt.Errorf("%v is on %v: %w", vip, h, err)
		}
	}
	return nil
}

// taken is what all nodes have used so far.
type taken struct {
	at             time.Duration
	packets, bytes uint64
	usage          []lab.Usage // by node
}

func (s *site) taken() (t taken, err error) {
	t.at = lab.Now()
	for i, h := range s.Nodes() {
		packets, bytes, err := h.Sent()
		if err != nil {
			return t, err
		}
		t.packets, t.bytes = t.packets+packets, t.bytes+bytes
		var sum lab.Usage
		for _, p := range s.tool.agents(i) {
			u, err := p.Usage()
			if err != nil {
				return t, err
			}
			sum.CPU, sum.Resident = sum.CPU+u.CPU, sum.Resident+u.Resident
		}
		t.usage = append(t.usage, sum)
	}
	return t, nil
}

// conditions returns the conditions of a run that begins now.
func conditions() page.Run {
	var u unix.Utsname
	_ = unix.Uname(&u) // can fail only on a bad pointer
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(one, 64)
	kernel, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-") // the rest names a build
	return page.Run{At: time.Now().UTC().Truncate(time.Second), Kernel: kernel, Load: load}
}

// keep writes the runs of one cell, and updates the page.
func (r *record) keep(cell []page.Run) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := filepath.Join(*out, page.RunsFile)
	all, err := page.ReadRuns(path)
	if err == nil {
		err = page.WriteRuns(path, page.Replace(all, cell))
	}
	if err == nil {
		fmt.Println(" ", page.Line(cell))
		err = page.Write(*out)
	}
	return err
}

func (r *record) keepCost(c page.Cost) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := filepath.Join(*out, page.CostsFile)
	all, err := page.ReadCosts(path)
	if err == nil {
		err = page.WriteCosts(path, page.ReplaceCost(all, c))
	}
	fmt.Printf("  %-11s %-8s %-13s %.0f packets/s, %.2f %% of a core, %.1f MB\n", c.Tool, c.Setting, "steady", c.Packets, c.CPU, c.MB)
	if err == nil {
		err = page.Write(*out)
	}
	return err
}
