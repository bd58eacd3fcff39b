package main

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"sipalive/platform"
)

// settleIn prepares the process for a PBX host that is short of memory or CPU, as far as
// the unit permits. It logs once what the process got and what that means.
func settleIn(node, runDir string, log *slog.Logger) (memoryLocked bool) {
	err := platform.LockMemory()
	if err != nil {
		log.Warn("memory is not locked: short of memory, a takeover may wait for the disk", "node", node, "err", err)
	}
	policy, failed := platform.Scheduling()
	switch {
	case failed != nil:
		log.Warn("scheduling policy unknown", "node", node, "err", failed)
	case strings.HasPrefix(policy, "rr ") || strings.HasPrefix(policy, "fifo "):
		log.Info("scheduling "+policy, "node", node)
	default:
		log.Warn("scheduling "+policy+": beside realtime processes (FreeSWITCH's unit is one) the agent may starve and lose its leases, "+
			"which the fence then ends (the unit's CPUSchedulingPolicy=rr gives it a realtime policy)", "node", node)
	}
	switch memory, failed := platform.OnTmpfs(runDir); {
	case failed != nil:
		log.Warn("runtime directory", "node", node, "err", failed)
	case !memory:
		log.Warn("the runtime directory "+runDir+" is on a disk: every vote waits for it (use a directory under /run, or mount a tmpfs there)", "node", node)
	}
	return err == nil
}

// endRunaway ends an agent that, as the kernel reports, has run at its realtime priority
// for LimitRTTIME= without ever waiting: such an agent starves the PBX and is of no use.
// Its stacks go to stderr. It ends like a killed agent: the unit starts the next one
// within the lease, and the fence keeps the promise if it does not. (The Go runtime alone
// would ignore SIGXCPU; SIGKILL follows at the hard limit.)
func endRunaway(node string, stderr io.Writer, log *slog.Logger) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGXCPU)
	go func() {
		<-signals
		log.Error("ran at a realtime priority without ever waiting, longer than LimitRTTIME= allows: ending for a successor", "node", node)
		stacks := make([]byte, 1<<20)
		_, _ = stderr.Write(stacks[:runtime.Stack(stacks, true)])
		os.Exit(exitNo)
	}()
}
