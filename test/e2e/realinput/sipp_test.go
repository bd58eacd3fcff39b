package realinput

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// TestMixedServers: SIPp on the second node, Kamailio on the others. VIPs move between
// the two kinds, and calls succeed wherever the VIPs are.
func TestMixedServers(t *testing.T) {
	s := start(t, cluster.Options{PBX: pbxBy(func(h *lab.Host) lab.Spec {
		if h.Name == "pbx2" {
			return sipp(t, h, "200 OK")
		}
		return kamailio(t, h)
	})})
	if s.holder(t, 0) != "pbx1" {
		s.move(t, 0, "pbx1")
	}
	s.hears(t, 0, "pbx1", lab.Now())
	s.calls(t, 20, 20)

	at := lab.Now()
	calling := s.phoneCalls(t, 100, 50)
	s.move(t, 0, "pbx2") // one second of calls is in progress or still to come
	s.hears(t, 0, "pbx2", at)
	calling(t)
	s.moved(t, 0, at, "pbx2")
	s.silent(t, 0, at, 200*time.Millisecond)
	s.calls(t, 20, 20)

	at = lab.Now()
	s.PBX(1).Kill() // every SIPp of pbx2
	s.await(t, "vip1 taken over by a Kamailio", func(context.Context) error {
		if h := s.holder(t, 0); h != "pbx1" && h != "pbx3" {
			return fmt.Errorf("at %q", h)
		}
		return nil
	})
	s.hears(t, 0, s.holder(t, 0), at)
	s.silent(t, 0, at, 500*time.Millisecond)
	s.calls(t, 20, 20)
}

// calls makes calls from the phone through the router to vip1. All of them must succeed.
func (s *site) calls(t *testing.T, count, perSecond int) {
	t.Helper()
	s.phoneCalls(t, count, perSecond)(t)
}

// phoneCalls starts calls, from INVITE to BYE. The function that it returns waits for
// their success.
func (s *site) phoneCalls(t *testing.T, count, perSecond int) func(*testing.T) {
	t.Helper()
	dir := t.TempDir()
	statistics := filepath.Join(dir, "calls.csv")
	p, err := s.Phone().Start(lab.Spec{Name: "calls", Path: "sipp", Dir: dir, Args: []string{
		netip.AddrPortFrom(s.VIPs[0], 5060).String(), "-sn", "uac", "-i", s.Phone().Addr.String(), "-p", "5070",
		"-m", fmt.Sprint(count), "-r", fmt.Sprint(perSecond), "-d", "100", "-nostdin",
		"-trace_stat", "-stf", statistics, "-timeout", "15", "-timeout_error"}})
	must(t, err)
	return func(t *testing.T) {
		t.Helper()
		ctx, cancel := cluster.Deadline(patience)
		defer cancel()
		if err := p.Wait(ctx); err != nil { // exit status 1: at least one call failed
			t.Errorf("%d calls to %v: %v\n%s", count, s.VIPs[0], err, tail(p.Output()))
			return
		}
		if out := p.Output(); !strings.Contains(out, "Successful call") {
			t.Errorf("SIPp tells of no calls:\n%s", tail(out))
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// TestServiceUnavailable: 503 is a full PBX, so a sign of life. It counts as death only
// if the configuration lists it.
func TestServiceUnavailable(t *testing.T) {
	full := pbxBy(func(h *lab.Host) lab.Spec {
		if h.Name == "pbx1" {
			return sipp(t, h, "503 Maximum Calls In Progress")
		}
		return kamailio(t, h)
	})
	t.Run("life", func(t *testing.T) {
		s := start(t, cluster.Options{VIPs: 1, PBX: full})
		s.move(t, 0, "pbx1") // nor is it a reason not to move there
		s.hears(t, 0, "pbx1", 0)
		at := lab.Now()
		watch(2 * time.Second)
		s.nobodyMoved(t, at)
		if r := s.saw(0, at); r.Status[503] == 0 || r.Status[503] != r.Answered {
			t.Errorf("answers by status %v, want 503 only", r.Status)
		}
	})
	t.Run("listed as unhealthy", func(t *testing.T) {
		s := launch(t, cluster.Options{VIPs: 1, TOML: swift + "settle = \"300ms\"\n[sip]\nunhealthy_codes = [503]\n", PBX: full})
		for i := range s.Nodes() {
			s.awaitNode(t, i, "pbx1 unfit", "pbx1", func(n control.NodeStatus) bool { return n.SIP == "down" && !n.Fit })
			s.awaitNode(t, i, "pbx2 fit", "pbx2", func(n control.NodeStatus) bool { return n.SIP == "up" && n.Fit })
		}
		s.await(t, "vip1 held by a healthy node", func(context.Context) error {
			if h := s.holder(t, 0); h != "pbx2" && h != "pbx3" {
				return fmt.Errorf("at %q, which vip1 prefers but which answers 503", h)
			}
			return nil
		})
		at := lab.Now()
		s.hears(t, 0, s.holder(t, 0), at)
		watch(time.Second)
		s.nobodyMoved(t, at)
	})
}
