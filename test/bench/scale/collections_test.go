package scale

import (
	"testing"
	"time"
)

func TestCollections(t *testing.T) {
	pauses, heap := collections("level=INFO msg=\"node up\"\n" +
		"gc 7 @12.345s 0%: 0.021+0.35+0.004 ms clock, 0.043+0/0.2/0.1+0.009 ms cpu, 4->4->1 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P\n" +
		"gc 8 @30.001s 0%: 1.5+0.35+0.5 ms clock, 0.043+0/0.2/0.1+0.009 ms cpu, 5->5->1 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)\n")
	if len(pauses) != 2 || pauses[0] != 25*time.Microsecond || pauses[1] != 2*time.Millisecond || heap != 5 {
		t.Errorf("pauses %v, heap %d MB", pauses, heap)
	}
}
