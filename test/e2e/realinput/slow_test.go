package realinput

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestBrownOut: the holder's PBX takes ten times as long for each answer, but less than
// the timeout. Nothing moves. Every node's status shows the round trips and says so in
// words.
func TestBrownOut(t *testing.T) {
	s := start(t, cluster.Options{TOML: swift + "[sip]\npeer_interval = \"400ms\"\n", PBX: pbxBy(func(h *lab.Host) lab.Spec {
		must(t, h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0) }))
		args := []string{h.Name}
		for _, a := range serving(h) {
			args = append(args, a.String())
		}
		return role("slow", args...)
	})})
	took := func(n control.NodeStatus) (median, p90, most time.Duration) {
		if len(n.Targets) != 1 {
			return 0, 0, 0
		}
		r := n.Targets[0]
		return time.Duration(r.Median), time.Duration(r.P90), time.Duration(r.Max)
	}
	for i := range s.Nodes() {
		s.awaitNode(t, i, "the usual round trip", "pbx1", func(n control.NodeStatus) bool {
			median, _, _ := took(n)
			return median >= usualAnswer && median < slowAnswer/2
		})
	}
	at := lab.Now()
	must(t, s.PBX(0).Signal(syscall.SIGUSR1))
	for i, h := range s.Nodes() {
		s.awaitNode(t, i, "ten times the round trip", "pbx1", func(n control.NodeStatus) bool {
			_, p90, most := took(n)
			return p90 >= slowAnswer && most >= slowAnswer && n.Fit && n.SIP == "up"
		})
		t.Logf("%s tells of it after %v", h.Name, lab.Now()-at)
		out := s.command(t, i, "status")
		if !strings.Contains(out, "! pbx1 main answers slowly: one answer in ten takes 2") {
			t.Errorf("status of %s does not say it:\n%s", h.Name, out)
		}
		if strings.Contains(out, "pbx2 main answers slowly") {
			t.Errorf("status of %s says it of another:\n%s", h.Name, out)
		}
	}
	watch(2 * time.Second)
	s.stayed(t, at)
	if h := s.holder(t, 0); h != "pbx1" {
		t.Errorf("vip1 is at %s", h)
	}
	s.silent(t, 0, at, slowAnswer+300*time.Millisecond)
}
