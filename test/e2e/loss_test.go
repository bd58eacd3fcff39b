package e2e

import (
	"testing"
	"time"

	"sipalive/test/cluster"
)

// TestLoss loses a fifth of all frames on the switch for a minute, with a lease of a
// quarter second. Only the holder may answer the phone.
func TestLoss(t *testing.T) {
	s := start(t, cluster.Options{TOML: "[timing]\nheartbeat = \"100ms\"\nlease = \"250ms\"\nhold_down = \"0s\"\n"})
	s.scene(t, "20 percent for 60 s", moves{0, 0}, func(t *testing.T, at time.Duration) {
		s.must(t, s.Loss(20))
		watch(time.Minute)
		for v := range s.VIPs {
			r := s.saw(v, at)
			t.Logf("%s: %v", cluster.VIPName(v), r)
			if r.By[s.home(v)] != r.Answered || r.Answered < r.Sent/2 {
				t.Errorf("%s: answers by %v of %d questions, want them all from %s", cluster.VIPName(v), r.By, r.Sent, s.home(v))
			}
			for _, tenure := range s.arp.Tenures(s.VIPs[v]) {
				if tenure.Host != s.home(v) && tenure.To >= at {
					t.Errorf("%s: %s answered ARP from %v to %v", cluster.VIPName(v), tenure.Host, tenure.From, tenure.To)
				}
			}
		}
	})
}
