package realinput

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// counts runs do and waits until a node's agent has counted at least that much more, in
// all these counters together.
func (s *site) counts(t *testing.T, node int, what string, least uint64, do func(), names ...string) {
	t.Helper()
	counted := s.counting(t, node, what, least, names)
	do()
	counted()
}

// allCount is counts for every agent at once.
func (s *site) allCount(t *testing.T, what string, least uint64, do func(), names ...string) {
	t.Helper()
	var counted []func()
	for i := range s.Nodes() {
		counted = append(counted, s.counting(t, i, what, least, names))
	}
	do()
	for _, wait := range counted {
		wait()
	}
}

func (s *site) counting(t *testing.T, node int, what string, least uint64, names []string) (wait func()) {
	t.Helper()
	sum := func() (n uint64) {
		c := s.counters(t, node)
		for _, name := range names {
			v, is := c[name]
			if !is {
				t.Fatalf("status --json has no counter %s", name)
			}
			n += v
		}
		return n
	}
	was := sum()
	return func() {
		t.Helper()
		deadline := time.Now().Add(patience)
		for sum()-was < least {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v of %s rose by %d, want at least %d", what, names, s.Node(node).Name, sum()-was, least)
			}
			watch(10 * time.Millisecond)
		}
		t.Logf("%s: %v of %s rose by %d", what, names, s.Node(node).Name, sum()-was)
	}
}

// memory returns the resident size of every agent, in MB.
func (s *site) memory(t *testing.T) (mb []int) {
	t.Helper()
	for i := range s.Nodes() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Agent(i).Pid))
		must(t, err)
		_, rest, found := strings.Cut(string(status), "\nVmRSS:")
		var kb int
		if _, err := fmt.Sscan(rest, &kb); !found || err != nil {
			t.Fatalf("no VmRSS of %s's agent: %v", s.Node(i).Name, err)
		}
		mb = append(mb, kb>>10)
	}
	return mb
}

// bounded asserts that hostile input has not made any agent's memory grow too far.
func (s *site) bounded(t *testing.T, before []int) {
	t.Helper()
	const limit = 64 // MB; design: 25 at rest
	after := s.memory(t)
	t.Logf("RSS of the agents: %v MB before, %v MB after", before, after)
	for i, mb := range after {
		if mb > limit {
			t.Errorf("agent of %s has %d MB, at most %d expected", s.Node(i).Name, mb, limit)
		}
	}
}
