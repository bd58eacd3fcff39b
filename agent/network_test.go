package agent

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sipalive/arp"
	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/hooks"
)

// TestRouterThatNeverAnswers: when the network watch says that the router does not
// answer, the unreachable actions of a takeover run once and people are told. The journal
// shows it every time.
func TestRouterThatNeverAnswers(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	r, said := telling(t)
	r.notify.ways[0].events = []config.Notice{config.NoticeUnreachable}
	l := r.a.names().byID[vip1]
	l.actions = []hooks.Action{{On: hooks.Unreachable, Exec: []string{"/bin/sh", "-c", "echo $SIPALIVE_EVENT $SIPALIVE_EPOCH $SIPALIVE_REASON >> " + ran}}}
	r.a.actions = newActions(r.a)
	r.a.actions.set(vip1, takeover{epoch: 8, took: 8})
	silent := arp.Proof{VIP: l.address, State: arp.RouterUnproven, Unreachable: true, Why: "gateway 192.0.2.1 answers nothing any more"}
	for range 2 { // the second time, the VIP was proven in between and lost again
		r.a.onRouter(silent)
	}
	r.a.actions.chains.Wait()
	const why = "vip1: not reached by the router for 10s: gateway 192.0.2.1 answers nothing any more"
	if text, err := os.ReadFile(ran); err != nil || string(text) != "unreachable 8 "+why+"\n" {
		t.Errorf("ran %q, %v", text, err)
	}
	if got := said(); len(got) != 1 || got[0] != "unreachable vip1 8: [sipalive pbx-dc1] "+why {
		t.Errorf("told %q", got)
	}
	for _, e := range r.a.Journal.Last(2) {
		if e.Kind != control.KindUnreachable || e.Text != why {
			t.Errorf("event %+v", e)
		}
	}
	r.a.actions.set(vip1, takeover{epoch: 9, took: 9, gone: true})
	r.a.onRouter(silent) // the report was on its way when the VIP was let go
	r.a.actions.chains.Wait()
	if text, _ := os.ReadFile(ran); strings.Count(string(text), "\n") != 1 {
		t.Errorf("ran %q for a VIP that is gone", text)
	}
}

// TestRivalIsTold: a rival is an alarm, with its MAC. That it is silent again is no
// alarm.
func TestRivalIsTold(t *testing.T) {
	r, said := telling(t)
	r.notify.ways[0].events = []config.Notice{config.NoticeRival}
	rival := arp.Rival{VIP: netip.MustParseAddr(string(vip1)), MAC: net.HardwareAddr{2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}, Node: "pbx2"}
	r.a.onRival(rival)
	rival.Over, rival.Claims = true, 3
	r.a.onRival(rival)
	want := "rival vip1 0: [sipalive pbx-dc1] vip1: 02:aa:bb:cc:dd:ee (pbx2) claims 192.0.2.101; it stays here"
	if got := said(); len(got) != 1 || got[0] != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestProofInStatus: the holder's status says how long the router took, as the event of
// the takeover does, until the next takeover.
func TestProofInStatus(t *testing.T) {
	r := newRecording(t)
	r.a.vipTargets = newVIPTargets(r.a)
	said := func(holder elect.Node, state elect.RouterState) control.Millis {
		r.settle()
		var out control.Status
		r.a.addVIP(&out, elect.VIPStatus{ID: vip1, Holder: holder, Router: state})
		return out.VIPs[0].Proof
	}
	for epoch, took := range map[elect.Epoch]time.Duration{8: 3 * time.Millisecond, 9: 12 * time.Millisecond} {
		r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: epoch, Cause: elect.CauseSIP}})
		if got := said("pbx3", elect.RouterProven); got != 0 {
			t.Errorf("epoch %d, not proven yet: %v", epoch, got)
		}
		r.bound(vip1, epoch, r.at(time.Millisecond), r.at(time.Millisecond), true)
		r.a.events = make(chan elect.Event, 1)
		r.a.onRouter(arp.Proof{VIP: netip.MustParseAddr(string(vip1)), First: true, Changed: true, State: arp.RouterProven, At: time.Duration(r.at(time.Millisecond + took))})
		if got := said("pbx3", elect.RouterProven); got != control.Millis(took) {
			t.Errorf("epoch %d: %v, want %v", epoch, got, took)
		}
		if e := r.last(); !strings.Contains(e.Timeline[len(e.Timeline)-1].Mark, "router proven") {
			t.Errorf("event %+v", e)
		} else if proof, _ := e.Proof(); proof != control.Millis(took) {
			t.Errorf("the event says %v, want %v", proof, took)
		}
		if a, b := said("pbx1", elect.RouterProven), said("pbx3", elect.RouterUnproven); a != 0 || b != 0 {
			t.Errorf("at another holder %v, unproven %v", a, b)
		}
	}
}
