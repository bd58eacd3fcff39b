package platform

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// BootNow reads CLOCK_BOOTTIME in nanoseconds since boot. It counts on while
// the machine sleeps, never jumps with the wall clock, and is the same clock
// the kernel's own deadlines (BPF ktime_get_boot_ns) are measured on.
//
// The runtime does not hear of the system call, which never waits: that alone would
// wake its monitor thread at nearly every event.
func BootNow() int64 {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		// Linux has had this clock since 2.6.39; the call fails only for a bad
		// clock number or pointer, and no lease can be kept without it.
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return ts.Nano()
}
