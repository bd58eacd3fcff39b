package agent

import (
	"context"
	"time"

	"sipalive/elect"
	"sipalive/platform"
)

// linkPatience is how long a link must be down until its VIPs leave, as a share
// of the lease: a cable that is only touched moves nothing.
const linkPatience = 4

// watchLinks tells the machine which VIPs' interfaces have no link.
func (b *binder) watchLinks(ctx context.Context) error {
	down, told := map[string]elect.Instant{}, map[string]bool{}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.links:
		case <-timer.C:
		}
		next := time.Hour
		for _, ap := range b.applied {
			if ap.vip == nil {
				continue
			}
			if wait := b.judgeLink(ap.address.Interface, down, told); wait > 0 {
				next = min(next, wait)
			}
		}
		timer.Reset(next)
	}
}

// judgeLink reads an interface's state and says when to look at it again.
func (b *binder) judgeLink(ifname string, down map[string]elect.Instant, told map[string]bool) (wait time.Duration) {
	now := b.a.Now()
	if platform.LinkUp(ifname) {
		delete(down, ifname)
		if told[ifname] {
			told[ifname] = false
			b.tellLink(ifname, true)
		}
		return 0
	}
	if _, is := down[ifname]; !is {
		down[ifname] = now
	}
	wait = down[ifname].Add(b.a.Config.Timing.Lease / linkPatience).Sub(now)
	if wait <= 0 && !told[ifname] {
		told[ifname] = true
		b.tellLink(ifname, false)
	}
	return wait
}

func (b *binder) tellLink(ifname string, up bool) {
	for _, ap := range b.applied {
		if ap.vip != nil && ap.address.Interface == ifname {
			b.a.report(elect.Link{VIP: ap.id, Up: up})
		}
	}
}
