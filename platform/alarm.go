package platform

import (
	"container/heap"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alarms ring at instants of the boot clock. One kernel timer serves them all
// (timerfd_create(2)).
//
// The Go runtime's own timers wait in epoll_wait(2), in whole milliseconds rounded down.
// Each costs one wake-up before its time and one up to 1 ms after it. In between, the
// runtime's monitor thread, which has the right time, naps 20 µs again and again
// (measured, Go 1.26: an idle agent's 14 timers a second were 60 % of its wake-ups). An
// alarm here rings once, some 50 µs after its time.
type Alarms struct {
	file *os.File
	raw  syscall.RawConn

	mu    sync.Mutex
	set   alarmHeap
	armed int64 // the time that the kernel's timer is set to; 0: not set
	spec  unix.ItimerSpec
}

// An Alarm rings once each time it is set.
type Alarm struct {
	of    *Alarms
	ring  func()
	at    int64
	index int // index in the heap; -1: not set
}

// OpenAlarms opens the kernel's timer.
func OpenAlarms() (*Alarms, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open a timer on the boot clock: %w", err)
	}
	a := &Alarms{file: os.NewFile(uintptr(fd), "timer")}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		a.file.Close()
		return nil, fmt.Errorf("open a timer on the boot clock: %w", err)
	}
	go a.run()
	return a, nil
}

// Close stops all alarms. Only an alarm that is already ringing may still ring.
func (a *Alarms) Close() error { return a.file.Close() }

// New makes an alarm that is not set. ring is called on a goroutine that all alarms
// share, so it must not wait. If Set or Stop is called just as the alarm rings, ring may
// be called once too often.
func (a *Alarms) New(ring func()) *Alarm { return &Alarm{of: a, ring: ring, index: -1} }

// Set makes the alarm ring at an instant of the boot clock, in ns, instead of at the time
// set before. A time in the past rings at once. Set costs a system call only if no other
// alarm rings earlier.
func (l *Alarm) Set(at int64) {
	a := l.of
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case l.index < 0:
		l.at = at
		heap.Push(&a.set, l)
	case l.at == at:
		return
	default:
		l.at = at
		heap.Fix(&a.set, l.index)
	}
	a.arm()
}

// Stop makes the alarm not ring. The kernel's timer stays set, and may then find nothing
// to do.
func (l *Alarm) Stop() {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.index >= 0 {
		heap.Remove(&l.of.set, l.index)
	}
}

// arm sets the kernel's timer if the next alarm rings before the time it is set to.
func (a *Alarms) arm() {
	if len(a.set) == 0 {
		return
	}
	next := max(a.set[0].at, 1) // 0 would disarm it
	if a.armed != 0 && a.armed <= next {
		return
	}
	a.armed = next
	a.spec.Value = unix.NsecToTimespec(next)
	// Control fails only once the file is closed. The call never waits, so the runtime
	// need not know about it: telling it would wake its monitor thread.
	_ = a.raw.Control(a.settime)
}

func (a *Alarms) settime(fd uintptr) {
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, unix.TFD_TIMER_ABSTIME, uintptr(unsafe.Pointer(&a.spec)), 0, 0, 0)
}

// run rings alarms until the file is closed.
func (a *Alarms) run() {
	var due []*Alarm
	var expired [8]byte
	for {
		err := a.raw.Read(func(fd uintptr) bool {
			_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&expired)), unsafe.Sizeof(expired))
			return !errors.Is(errno, unix.EAGAIN)
		})
		if err != nil {
			return
		}
		due = a.take(due[:0])
		for _, l := range due {
			l.ring()
		}
	}
}

// take removes and returns the alarms that are due, and sets the kernel's timer for the
// rest.
func (a *Alarms) take(due []*Alarm) []*Alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = 0
	for now := BootNow(); len(a.set) > 0 && a.set[0].at <= now; {
		due = append(due, heap.Pop(&a.set).(*Alarm))
	}
	a.arm()
	return due
}

// alarmHeap has the next alarm to ring at the front.
type alarmHeap []*Alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *alarmHeap) Push(x any) {
	l := x.(*Alarm)
	l.index = len(*h)
	*h = append(*h, l)
}

func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.index = -1
	return l
}
