package lab

import (
	"runtime/debug"
	"sync"
)

// mostHeap is when Go's collector runs all the same.
const mostHeap = 512 << 20

// collector is held off while anybody observes: a thread that leaves a system call
// spins while its stack is scanned, and an observer, at realtime priority, spins on the
// very core that the scanning thread was on (measured: for up to 67 ms, until the kernel's
// fair server lets that one run).
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
