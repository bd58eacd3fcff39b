package lab

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since boot by CLOCK_BOOTTIME, the clock of every time in
// this package and of the agents under test.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime CLOCK_BOOTTIME: %v (kernel older than 2.6.39)", err))
	}
	return time.Duration(ts.Nano())
}

// waitPause is how long WaitFor rests between two looks.
const waitPause = 2 * time.Millisecond

// WaitFor looks every 2 ms whether cond returns nil, until it does or ctx ends.
// The error then names what was awaited, how long, and cond's last answer.
func WaitFor(ctx context.Context, what string, cond func() error) error {
	begin := Now()
	tick := time.NewTicker(waitPause)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: not within %v: %w", what, (Now() - begin).Round(time.Millisecond), err)
		case <-tick.C:
		}
	}
}
