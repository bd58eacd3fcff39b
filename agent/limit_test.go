package agent

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sipalive/arp"
	"sipalive/control"
	"sipalive/elect"
)

// TestAnnouncedLater: with a limit, a VIP's first announcement may leave after the VIP
// was bound. The timeline says when it left. The phones are woken only then, because what
// they answer earlier goes to the old holder. If the VIP is let go before its turn came,
// it is never announced. If its holder becomes a survivor first, the phones are woken at
// once.
func TestAnnouncedLater(t *testing.T) {
	t.Parallel()
	h := newHolding(t)
	a := h.r.a
	a.Announcer.SetLimit(arp.MinLimit)
	crowd := func() {
		for i := range 2 * arp.MinLimit { // so that the VIP's turn comes after 2.2 s, however slow the machine is
			h.must(a.Announcer.Announce(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)}), "eth0"))
		}
	}
	marks := func() (marks []string) {
		h.r.settle()
		for _, m := range h.r.last().Timeline {
			marks = append(marks, m.Mark)
		}
		return marks
	}
	takes := func() {
		h.r.transitions([]elect.Transition{{Kind: elect.Acquired, VIP: vip1, Node: "pbx3", Epoch: 7, Previous: "pbx1", Cause: elect.CauseMove, Noticed: h.r.at(0), Vacant: h.r.at(0)}})
		h.want(true)
		h.b.flushStale()
	}
	crowd()
	takes()
	if got := marks(); slices.Contains(got, "announced") || !slices.Contains(got, "bound") || len(a.phones.wakes) > 0 {
		t.Fatalf("marks %q, %d wakes before its turn", got, len(a.phones.wakes))
	}
	h.r.now = h.r.at(time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.b.run(ctx) }()
	h.await("its turn", func() bool { return len(a.phones.wakes) > 0 })
	a.left.Store(true) // the binder's end leaves what is held
	cancel()
	h.must(<-ran)
	h.r.settle()
	if at := slices.IndexFunc(h.r.last().Timeline, func(m control.Mark) bool {
		return m.Mark == "announced" && m.At == control.Millis(time.Second)
	}); at < 0 {
		t.Errorf("timeline %+v", h.r.last().Timeline)
	}
	if h.b.said(); len(a.phones.wakes) != 1 {
		t.Errorf("woken %d times", len(a.phones.wakes))
	}
	h.want(false)

	crowd()
	h.b.apply(false)
	takes()
	waits := a.Announcer.Waits(vip1Address)
	h.want(false)
	unsaid := len(h.b.unsaid)
	h.b.said()
	if !waits || a.Announcer.Waits(vip1Address) || unsaid > 0 || len(a.phones.wakes) != 1 || slices.Contains(marks(), "announced") {
		t.Errorf("let go before its turn: waited %t, waits %t, %d wakes, marks %q", waits, a.Announcer.Waits(vip1Address), len(a.phones.wakes), marks())
	}

	crowd()
	takes()
	before := len(a.phones.wakes)
	h.b.want([]elect.Desired{{VIP: vip1, Hold: true, Epoch: 7, Until: h.r.at(time.Hour), Survivor: true}, {VIP: elect.RoleID("cdr")}}, true)
	h.b.apply(false)
	if len(h.b.unsaid) > 0 || before != 1 || len(a.phones.wakes) != 2 || slices.Contains(marks(), "announced") {
		t.Errorf("a survivor before its turn: unsaid %v, %d wakes and then %d, marks %q", h.b.unsaid, before, len(a.phones.wakes), marks())
	}
}
