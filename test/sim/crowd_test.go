package sim_test

import (
	"testing"
	"time"

	"sipalive/test/sim"
)

// TestCrowd: what a node sends grows with the number of its peers, not with its square.
// So a heartbeat must not grow with the cluster.
func TestCrowd(t *testing.T) {
	perPeer := func(nodes int) (packets, bytes float64) {
		w := sim.Crowd(nodes, 4)
		if !w.Settle(10*time.Second, time.Second) {
			t.Fatalf("%d nodes: not everything is held", nodes)
		}
		n := w.Nodes[nodes-1] // neither voter nor holder
		n.Meter = sim.NewMeter()
		w.Run(time.Second)
		if n.Meter.Failed != nil || len(w.Judge.Violations) > 0 {
			t.Fatalf("%d nodes: %v, %v", nodes, n.Meter.Failed, w.Judge.Violations)
		}
		per := float64(nodes - 1)
		return float64(n.Meter.Packets) / per, float64(n.Meter.Bytes) / per
	}
	fewPackets, fewBytes := perPeer(12)
	manyPackets, manyBytes := perPeer(48)
	t.Logf("a second and peer: %.1f packets, %.0f bytes among 12 nodes, %.1f and %.0f among 48", fewPackets, fewBytes, manyPackets, manyBytes)
	if manyPackets > 1.1*fewPackets || manyBytes > 1.1*fewBytes {
		t.Errorf("a node sends each peer %.1f packets and %.0f bytes a second among 48 nodes, %.1f and %.0f among 12", manyPackets, manyBytes, fewPackets, fewBytes)
	}
}
