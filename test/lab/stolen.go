package lab

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stolenTick is the unit of /proc/stat: USER_HZ, 100 on every Linux that Go supports.
const stolenTick = 10 * time.Millisecond

// stolenLate is how long after the end of a stolen time it is looked for. The kernel
// counts it only when the core runs again, and the next sample sees it.
const stolenLate = 100 * time.Millisecond

// Stolen records the time in which the host of this virtual machine gave no CPU time to a
// core that had work to do (`steal` in /proc/stat, proc_stat(5)). Every process on that
// core was silent in that time.
type Stolen struct {
	mu    sync.Mutex
	at    []time.Duration
	cores [][]time.Duration // by sample: stolen time of each core since boot
	err   error
}

// WatchStolen returns the process's only Stolen. The first call starts the recording,
// which goes on until the process ends.
var WatchStolen = sync.OnceValue(func() *Stolen {
	s := &Stolen{}
	s.sample()
	go func() {
		for range time.Tick(2 * stolenTick) {
			s.sample()
		}
	}()
	return s
})

func (s *Stolen) sample() {
	at := Now()
	cores, err := stolenOfCores()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.err = err
		return
	}
	s.at, s.cores = append(s.at, at), append(s.cores, cores)
}

// Between returns how much time was stolen between two moments, from all cores together:
// what waits for one process may then wait for another, on another core. It waits until
// the kernel has counted what was stolen last.
func (s *Stolen) Between(from, to time.Duration) (sum time.Duration, err error) {
	to += stolenLate
	time.Sleep(to - Now())
	s.mu.Lock()
	sampled := s.err != nil || s.at[len(s.at)-1] >= to
	s.mu.Unlock()
	if !sampled {
		s.sample()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	first := max(0, sort.Search(len(s.at), func(i int) bool { return s.at[i] > from })-1)
	last := sort.Search(len(s.at)-1, func(i int) bool { return s.at[i] >= to })
	before, after := s.cores[first], s.cores[last]
	for i := range min(len(before), len(after)) {
		sum += after[i] - before[i]
	}
	return sum, nil
}

// Excuse reports on the questions that o sent in [from, to). It also returns how much of
// the longest silence the machine explains: the observer stood still, or the cores did on
// which others ran. Who ran on a stolen core answers when it gets the core back. So if the
// silence is longer than most, it is looked at again a second later.
func (s *Stolen) Excuse(o *SIPObserver, from, to, most time.Duration) (r SIPReport, excused time.Duration, err error) {
	for again := true; ; again = false {
		r = o.Report(from, to)
		if r.Silence <= most+r.Stall {
			return r, r.Stall, nil
		}
		lost, err := s.Between(r.SilenceFrom, r.SilenceTo)
		excused = r.Stall + lost
		if err != nil || !again || r.Silence <= most+excused {
			return r, excused, err
		}
		time.Sleep(time.Second)
	}
}

// leaseMargin is the least by which a holder's lease is shorter than its grants
// (docs/design.md §4.1). A holder that only starved lost it before another took over.
const leaseMargin = 10 * time.Millisecond

// Explains returns the time stolen around an overlap, from all cores together, and
// whether that explains it. An address alone is no ownership: an agent without a core
// cannot unbind it when its lease ends, and the fence silences it (docs/design.md §5.2).
// Whether the fence does, ARP has to show.
func (s *Stolen) Explains(o Overlap) (lost time.Duration, all bool, err error) {
	to := o.To
	if to == 0 {
		to = Now()
	}
	lost, err = s.Between(o.From-stolenLate, to)
	return lost, lost >= to-o.From+leaseMargin, err
}

// Judge fails a test for an overlap, or logs it if stolen time explains it and ARP
// questions are asked for the address.
func (s *Stolen) Judge(t interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}, o Overlap, asked bool) error {
	t.Helper()
	lost, explained, err := s.Explains(o)
	if told := fmt.Sprintf("%v had %v at once from %v to %v", o.Hosts, o.Addr, o.From, o.To); explained && asked {
		t.Logf("%s, while the host stole %v", told, lost)
	} else {
		t.Errorf("two holders: %s", told)
	}
	return err
}

func stolenOfCores() (cores []time.Duration, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(stat)) {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			continue
		}
		ticks, err := strconv.ParseInt(f[8], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("/proc/stat: steal of %s: %w", f[0], err)
		}
		cores = append(cores, time.Duration(ticks)*stolenTick)
	}
	return cores, nil
}
