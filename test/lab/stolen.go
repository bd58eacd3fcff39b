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

// stolenTick is how /proc/stat counts: USER_HZ, 100 on every Linux with Go.
const stolenTick = 10 * time.Millisecond

// Stolen follows the time in which the host of this virtual machine let a core stand
// still that had work to do (`steal` of /proc/stat, proc_stat(5)). Who ran there was
// silent, whoever it was.
type Stolen struct {
	mu    sync.Mutex
	at    []time.Duration
	cores [][]time.Duration // by sample: of each core, since boot
	err   error
}

// WatchStolen begins to follow, for as long as the process runs.
func WatchStolen() *Stolen {
	s := &Stolen{}
	s.sample()
	go func() {
		for range time.Tick(2 * stolenTick) {
			s.sample()
		}
	}()
	return s
}

func (s *Stolen) sample() {
	at := Now()
	cores, err := stolenOfCores()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at, s.cores, s.err = append(s.at, at), append(s.cores, cores), err
}

// Since is what was stolen since a moment from the core that lost most.
func (s *Stolen) Since(from time.Duration) (most time.Duration, err error) {
	s.sample()
	s.mu.Lock()
	defer s.mu.Unlock()
	first := max(0, sort.Search(len(s.at), func(i int) bool { return s.at[i] > from })-1)
	before, now := s.cores[first], s.cores[len(s.cores)-1]
	for i := range min(len(before), len(now)) {
		most = max(most, now[i]-before[i])
	}
	return most, s.err
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
