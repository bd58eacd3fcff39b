package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sipalive/platform"
)

const (
	// systemdPatience bounds the question to systemd, which may be busy with a
	// shutdown. The agent works on meanwhile.
	systemdPatience = 2 * time.Second
	// leavePatience is how long an agent may take that has nothing to hand over.
	leavePatience = 5 * time.Second
	// noEnd: the agent bounds its own hand over, and systemd both of us.
	noEnd = -time.Millisecond
)

// stopForSystemd is the unit's ExecStop=. Where systemd restarts the unit, the
// agent leaves everything to its successor; in every other case, and where that
// cannot be found out, it hands over. Whatever goes wrong here, systemd's
// SIGTERM comes next, and hands over too.
func stopForSystemd(ctx context.Context, out io.Writer) error {
	text := os.Getenv("MAINPID")
	if text == "" { // systemd calls us also when the agent has ended by itself
		_, err := fmt.Fprintln(out, "no agent to stop: systemd names no main process ($MAINPID)")
		return err
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 1 {
		return fmt.Errorf("stop --systemd: $MAINPID is %q, not a process (it is for the unit's ExecStop=)", text)
	}
	agent, err := unix.PidfdOpen(pid, 0) // the number cannot become another's under our hands
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop --systemd: open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(agent) }()
	signal, why := signalFor(ctx, pid)
	_, _ = fmt.Fprintln(out, why) // a journal that takes nothing must not stop us
	if err := unix.PidfdSendSignal(agent, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop --systemd: signal %s to process %d: %w", unix.SignalName(signal), pid, err)
	}
	patience := leavePatience
	if signal == unix.SIGTERM {
		patience = noEnd
	}
	return awaitEnd(agent, pid, patience)
}

// signalFor is what the agent has to be told, and why. One thing alone is a
// restart; a mistake the other way would leave the addresses without a holder
// for a lease.
func signalFor(ctx context.Context, pid int) (unix.Signal, string) {
	c, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	switch job, err := platform.UnitJob(c, pid); {
	case err != nil:
		return unix.SIGTERM, fmt.Sprintf("handing over: cannot tell a restart from a stop: %v", err)
	case job == platform.RestartJob:
		return unix.SIGUSR2, "systemd restarts the unit: leaving everything to the successor"
	case job == "":
		return unix.SIGTERM, "handing over: systemd has no job for the unit"
	default:
		return unix.SIGTERM, fmt.Sprintf("handing over: systemd's job is %s", job)
	}
}

// awaitEnd returns when the process is gone.
func awaitEnd(agent, pid int, patience time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(agent), Events: unix.POLLIN}}
	for {
		switch n, err := unix.Poll(fds, int(patience.Milliseconds())); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("stop --systemd: wait for process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("stop --systemd: process %d has not left after %s (systemd ends it next)", pid, patience)
		default:
			return nil
		}
	}
}
