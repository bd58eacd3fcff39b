package platform

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// BootNow returns CLOCK_BOOTTIME: nanoseconds since boot. It goes on counting while the
// machine sleeps and never jumps with the wall clock. The kernel's own deadlines (BPF
// ktime_get_boot_ns) use the same clock.
//
// The system call is made without telling the Go runtime. The call never waits, and
// telling the runtime would wake its monitor thread at nearly every event.
func BootNow() int64 {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		// Linux has had this clock since 2.6.39. The call fails only for a bad clock
		// number or pointer, and without this clock no lease can be kept.
		panic("CLOCK_BOOTTIME: " + err.Error())
	}
	return ts.Nano()
}
