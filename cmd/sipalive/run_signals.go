package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"sipalive/agent"
	"sipalive/platform"
)

// handOverPatience bounds a stop, in addition to the time that the successors need.
const handOverPatience = 5 * time.Second

// signals are the signals that an agent obeys.
type signals struct{ end, hangup chan os.Signal }

// hearSignals listens for signals from now on. It is called at the very start, because by
// default they would end a process that has leases of an earlier agent to hand over.
func hearSignals() signals {
	s := signals{make(chan os.Signal, 2), make(chan os.Signal, 1)}
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	signal.Notify(s.hangup, syscall.SIGHUP)
	return s
}

func (s signals) stop() {
	signal.Stop(s.end)
	signal.Stop(s.hangup)
}

// runUntilSignal hands over at the first SIGTERM or SIGINT and ends at once at the
// second. SIGUSR2 ends the agent at once too, and leaves everything as it is for a
// successor that starts within the lease.
func runUntilSignal(ctx context.Context, a *agent.Agent, heard signals, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go reloadOnHangup(ctx, a, heard.hangup, log)
	var signalled atomic.Bool
	go func() {
		select {
		case <-ctx.Done():
			return
		case s := <-heard.end:
			signalled.Store(true)
			if s == syscall.SIGUSR2 {
				log.Info("leaving everything to a successor", "reason", s.String())
				a.Leave()
				cancel()
				return
			}
			log.Info("handing over", "reason", s.String())
		}
		// The unit's TimeoutStopSec= is meant for agents without slow actions.
		_ = platform.NotifySystemd(fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", (handOverPatience + a.EndPatience()).Microseconds()))
		go func() {
			c, end := context.WithTimeout(ctx, a.StopPatience()+handOverPatience)
			defer end()
			if err := a.Stop(c); err != nil && !errors.Is(err, context.Canceled) {
				log.Warn("hand over", "err", err)
			}
			cancel()
		}()
		select {
		case <-ctx.Done():
		case <-heard.end:
			cancel()
		}
	}()
	err := a.Run(ctx)
	if err == nil && a.Stopped() && !signalled.Load() {
		return errStopped
	}
	return err
}
