package agent

import (
	"sync/atomic"
	"time"
)

// grid says when regular probes start: together with the heartbeats, so that one wake-up
// serves both.
type grid struct{ at atomic.Pointer[time.Time] }

// gridSlack is how late a heartbeat may be and still belong to the grid.
const gridSlack = 5 * time.Millisecond

// beat takes a heartbeat that has just left. The grid stays as long as heartbeats keep to
// it. If it moved each time, probes that are rarer than heartbeats would come sooner with
// each move. The least late heartbeat says where the grid is.
func (g *grid) beat(now time.Time, every time.Duration) {
	if last := g.at.Load(); last != nil {
		slack, late := min(gridSlack, every/4), now.Sub(*last)%every
		switch early := every - late; {
		case late <= slack:
			return
		case early <= slack:
			now = last.Add(-early)
		}
	}
	g.at.Store(&now)
}

// last returns a heartbeat of the present grid; the first one may still be to come.
func (g *grid) last() time.Time {
	if at := g.at.Load(); at != nil {
		return *at
	}
	return time.Time{}
}
