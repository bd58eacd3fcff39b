package platform

import (
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// NotifySystemd sends one state to the service manager as sd_notify(3) does: READY=1,
// STATUS=text, WATCHDOG=1, STOPPING=1, or several joined by newlines. If systemd did not
// start this process (no NOTIFY_SOCKET), it does nothing and returns nil.
func NotifySystemd(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify systemd: %w (is NotifyAccess= set for this process?)", err)
	}
	return nil
}

// WatchdogInterval returns the longest time between two WATCHDOG=1 that systemd allows
// (WatchdogSec= of the unit). It is 0 if systemd does not watch this process. Send
// WATCHDOG=1 at half of that interval.
func WatchdogInterval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("read systemd watchdog interval: %w (see WATCHDOG_USEC)", err)
	}
	return d, nil
}
