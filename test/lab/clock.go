package lab

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since boot by CLOCK_BOOTTIME. Every time in this package is read
// from this clock, and the agents under test use it too.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime CLOCK_BOOTTIME: %v (kernel older than 2.6.39)", err))
	}
	return time.Duration(ts.Nano())
}

// waitPause is the time between two calls of WaitFor's condition.
const waitPause = 2 * time.Millisecond

// WaitFor calls cond every 2 ms until cond returns nil or ctx ends. If ctx ends, the
// error says what was awaited, for how long, and cond's last error.
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
