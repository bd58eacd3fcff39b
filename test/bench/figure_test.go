package bench

import (
	"testing"
	"time"
)

// TestMissedTargets: a median above the target is a miss, unless more than a third of the
// runs were rejected.
func TestMissedTargets(t *testing.T) {
	ms := func(values ...time.Duration) (all []time.Duration) {
		for _, v := range values {
			all = append(all, v*time.Millisecond)
		}
		return all
	}
	for name, c := range map[string]struct {
		figure figure
		missed bool
	}{
		"met":              {figure{values: ms(8, 10, 90)}, false},
		"missed":           {figure{values: ms(8, 11, 12)}, true},
		"a third rejected": {figure{values: ms(11, 11, 11, 11), rejected: 2}, true},
		"more than that":   {figure{values: ms(11, 11, 11), rejected: 2}, false},
	} {
		c.figure.target = 10 * time.Millisecond
		if c.figure.missed() != c.missed {
			t.Errorf("%s: missed is %v", name, !c.missed)
		}
	}
}
