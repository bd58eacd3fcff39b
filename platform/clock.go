package platform

import "golang.org/x/sys/unix"

// BootNow reads CLOCK_BOOTTIME in nanoseconds since boot. It counts on while
// the machine sleeps, never jumps with the wall clock, and is the same clock
// the kernel's own deadlines (BPF ktime_get_boot_ns) are measured on.
func BootNow() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39; the call fails only for a bad
		// clock number or pointer, and no lease can be kept without it.
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return ts.Nano()
}
