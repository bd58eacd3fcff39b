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

// Stolen records the time in which the host of this virtual machine gave no CPU time to a
// core that had work to do (`steal` in /proc/stat, proc_stat(5)). Every process on that
// core was silent in that time.
type Stolen struct {
	mu    sync.Mutex
	at    []time.Duration
	cores [][]time.Duration // by sample: stolen time of each core since boot
	err   error
}

// WatchStolen starts recording. It goes on until the process ends.
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

// Since returns how much time was stolen since a moment, from the core that lost most.
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
