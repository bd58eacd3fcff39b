package lab

import (
	"runtime/debug"
	"sync"
)

// mostHeap is the heap size at which Go's garbage collector runs even while held off.
const mostHeap = 512 << 20

// collector holds off Go's garbage collector while an observer runs. A thread that leaves
// a system call spins while its stack is scanned. An observer spins at real-time
// priority, on the very core where the scanning thread was running. Measured: for up to
// 67 ms, until the kernel's fair server lets the scanning thread run.
var collector struct {
	sync.Mutex
	observers int
	percent   int
	limit     int64
}

func holdCollector() {
	collector.Lock()
	defer collector.Unlock()
	if collector.observers++; collector.observers == 1 {
		collector.percent, collector.limit = debug.SetGCPercent(-1), debug.SetMemoryLimit(mostHeap)
	}
}

func freeCollector() {
	collector.Lock()
	defer collector.Unlock()
	if collector.observers--; collector.observers == 0 {
		debug.SetGCPercent(collector.percent)
		debug.SetMemoryLimit(collector.limit)
	}
}
