package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// complaints records what a check reports, instead of failing the test.
type complaints struct {
	testing.TB
	lines []string
}

func (c *complaints) Errorf(format string, args ...any) {
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

// TestChecksSee plants one violation of every invariant: a check that saw nothing would
// pass everywhere.
func TestChecksSee(t *testing.T) {
	// No fence: it would silence the second holder.
	s := start(t, cluster.Options{TOML: "fence = \"none\"\n" + calm})
	s.ruined = true
	s.settle(t)
	at := lab.Now()
	s.checkEpochs(t)

	s.Agent(2).Kill() // it would repair what follows
	s.must(t, s.Node(2).Bind(s.VIPs[0]))
	s.must(t, s.Node(1).Unbind(s.foreign["pbx2"]))
	await(t, "two holders for longer than stolen time explains", func(context.Context) error {
		overlaps, err := s.addresses.Overlaps(s.VIPs[0])
		s.must(t, err)
		n := len(s.arp.Violations())
		if n < 5 || len(overlaps) != 1 {
			return fmt.Errorf("%d ARP questions answered twice, overlaps %v", n, overlaps)
		}
		lost, explained, err := lab.WatchStolen().Explains(overlaps[0])
		if explained {
			err = fmt.Errorf("%v were stolen", lost)
		}
		return err
	})
	s.epochs.highest["vip1"] += 1000
	s.epochs.acquired["vip2"][1] = acquisition{"pbx3", time.Now()}
	s.epochs.acquired["vip2"][1000] = acquisition{"pbx3", time.Now().Add(-time.Hour)}

	c := &complaints{TB: t}
	s.check(c, at, moves{0, 0})
	told := strings.Join(c.lines, "\n")
	for _, want := range []string{
		"two holders: [pbx1 pbx3] had 10.77.0.101 at once", "ARP questions were answered by two hosts",
		"foreign address: 10.77.0.152 of pbx2 was removed", "foreign address: 10.77.0.152 is at []",
		"vip1 got a new holder 1 times, want 0", "of vip1, and said 100",
		"pbx3 and pbx2 both acquired vip2 under 1", "pbx3 acquired vip2 under 1000",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("the checks do not see %q:\n%s", want, told)
		}
	}

	c.lines, s.ruined = nil, false
	s.must(t, s.Node(2).Unbind(s.VIPs[0]))
	s.must(t, s.Node(2).Bind(s.VIPs[1]))
	s.end(c)
	s.ruined = true
	if told := strings.Join(c.lines, "\n"); !strings.Contains(told, "orphan: vip2 is still at [pbx3]") {
		t.Errorf("the check at the end does not see an orphan:\n%s", told)
	}
	if err := s.Untouched(); err == nil || !strings.Contains(err.Error(), "foreign settings of pbx2: gone: address 10.77.0.152/32") {
		t.Errorf("the comparison at the end says %v", err)
	}
	s.must(t, s.Node(1).Bind(s.foreign["pbx2"]))
}
