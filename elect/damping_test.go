package elect_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDamping: the PBX of a VIP's home dies every 30 s for an hour, and failback is as
// eager as it can be. Each time the node is held down for longer. So the VIP comes home a
// few times and then stays away: the cluster settles.
func TestDamping(t *testing.T) {
	const cycles = 120
	out := play(t, "nodes a b c\nvip vip1 a\nvip vip2 b\nset failback auto\nset failback_after 0s\nquiet on\nstart\nrun 8s\nquiet off\n"+
		strings.Repeat("pbx a refused\nrun 5s\npbx a up\nrun 25s\n", cycles))
	taken := regexp.MustCompile(`(?m)^ +([0-9.]+)s ([abc]) HOLDS vip1`)
	var moves []string
	last := 0.0
	for _, m := range taken.FindAllStringSubmatch(out, -1) {
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		moves, last = append(moves, m[2]+" at "+m[1]+" s"), at
	}
	t.Logf("%d deaths in an hour, %d new holders, the last after %.0f s: %s", cycles, len(moves), last, strings.Join(moves, ", "))
	if len(moves) == 0 || len(moves) > 5 || last > 120 {
		t.Errorf("the cluster does not settle")
	}
	if strings.Contains(out, "HOLDS vip2") {
		t.Error("the other VIP moved")
	}
}
