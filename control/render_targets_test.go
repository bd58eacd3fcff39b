package control

import (
	"slices"
	"testing"
	"time"
)

// TestSlowAnswersAreSaid, as soon as one in ten takes more than half the timeout.
func TestSlowAnswersAreSaid(t *testing.T) {
	ms := Millis(time.Millisecond)
	for p90, want := range map[Millis][]string{
		200 * ms: nil,
		201 * ms: {"pbx1 main answers slowly: one answer in ten takes 201.0 ms or more, after 400.0 ms it counts as silent"},
	} {
		got := unusualTargets("pbx1", []TargetStatus{{Name: "main", Median: ms, P90: p90, Max: 300 * ms, Timeout: 400 * ms}})
		if !slices.Equal(got, want) {
			t.Errorf("p90 %v: %q, want %q", p90.text(), got, want)
		}
	}
}
