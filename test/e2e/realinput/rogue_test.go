package realinput

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestRogueAnswers: bad answers beside a good one are counted and dropped. A bad answer
// instead of a good one is no sign of life.
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
		s.allCount(t, name, 2, func() { lie(name, all...) }, "sip_malformed", "sip_late")
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
	lie("", all...)
	s.counts(t, s.Index(flooded), "flood", 3*floodSize/2, func() { lie("flood", flooded) }, "sip_late")
	lie("", all...)
	s.nobodyMoved(t, at)

	// Only lies: none of them is a sign of life. On the spare, so that nothing has to
	// move.
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
