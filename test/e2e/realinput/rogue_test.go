package realinput

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestRogueAnswers: whatever a PBX answers besides a good answer is counted and
// dropped; whatever it answers instead of one is no life.
func TestRogueAnswers(t *testing.T) {
	dir := t.TempDir()
	how := func(node string) string { return filepath.Join(dir, node) }
	s := start(t, cluster.Options{PBX: pbxBy(func(h *lab.Host) lab.Spec {
		return role("rogue", h.Name, how(h.Name), h.Addr.String(), vipOf(h, 1).String(), vipOf(h, 2).String())
	})})
	lie := func(name string, nodes ...string) {
		for _, n := range nodes {
			// In one step: the rogue must not read half a name.
			must(t, os.WriteFile(how(n)+".new", []byte(name), 0o600))
			must(t, os.Rename(how(n)+".new", how(n)))
		}
	}
	all := []string{"pbx1", "pbx2", "pbx3"}
	before := s.memory(t)

	at := lab.Now()
	for _, name := range slices.Sorted(maps.Keys(lies)) {
		s.eachCounts(t, name, 2, func() { lie(name, all...) }, "sip_malformed", "sip_late")
	}
	lie("other port", all...)
	watch(500 * time.Millisecond)
	for i, h := range s.Nodes() {
		if out := s.PBX(i).Output(); out != "" {
			t.Fatalf("rogue of %s: %s", h.Name, out)
		}
	}
	t.Log("every lie told, on every node")
	s.nobodyMoved(t, at)

	// 10,000 answers to a question, on a node that holds a VIP.
	flooded := s.holder(t, 0)
	at = lab.Now()
	s.eachCounts(t, "flood", 3*floodSize/2, func() { lie("", all...); lie("flood", flooded) }, "sip_late")
	lie("", all...)
	s.nobodyMoved(t, at)

	// Only lies: each of them alone is no life. On the spare, so that nobody has to move.
	spare := s.spare(t)
	at = lab.Now()
	for _, name := range []string{"no To", "wrong Call-ID", "64 KB", "binary", "other port", "half a message"} {
		lie("only "+name, spare)
		for i := range s.Nodes() {
			s.awaitNode(t, i, fmt.Sprintf("%s down that answers only with %s", spare, name), spare, func(n control.NodeStatus) bool { return n.SIP == "down" && !n.Fit })
		}
		lie("", spare)
		for i := range s.Nodes() {
			s.awaitNode(t, i, spare+" up", spare, func(n control.NodeStatus) bool { return n.SIP == "up" && n.Fit })
		}
	}
	s.nobodyMoved(t, at)
	s.bounded(t, before)
}

// eachCounts does something and waits until an agent has counted that many more
// in one or several counters: every agent where more is small, else any.
func (s *site) eachCounts(t *testing.T, what string, more uint64, do func(), names ...string) {
	t.Helper()
	sum := func(i int) (n uint64) {
		c := s.counters(t, i)
		for _, name := range names {
			v, is := c[name]
			if !is {
				t.Fatalf("status --json has no counter %s: %v", name, slices.Sorted(maps.Keys(c)))
			}
			n += v
		}
		return n
	}
	var was []uint64
	for i := range s.Nodes() {
		was = append(was, sum(i))
	}
	do()
	deadline := time.Now().Add(patience)
	for {
		counted, lines := 0, []string{}
		for i := range s.Nodes() {
			n := sum(i) - was[i]
			lines = append(lines, fmt.Sprint(n))
			if n >= more {
				counted++
			}
		}
		if counted == len(was) || counted > 0 && more > 100 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: counted as %v by the three agents: %v, want %d", what, names, lines, more)
		}
		watch(10 * time.Millisecond)
	}
}

// memory is the resident size of every agent, in MB.
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

// bounded asserts that hostile input has cost no agent its memory.
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
