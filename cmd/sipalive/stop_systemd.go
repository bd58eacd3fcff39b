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
	// systemdPatience bounds the question to systemd, which may be busy with a shutdown.
	// The agent works on meanwhile.
	systemdPatience = 2 * time.Second
	// leavePatience is how long an agent that hands nothing over may take to end.
	leavePatience = 5 * time.Second
	// noEnd: the agent bounds its own handover, and systemd bounds the agent and this
	// process.
	noEnd = -time.Millisecond
)

// stopForSystemd is the unit's ExecStop=. If systemd restarts the unit, the agent leaves
// everything to its successor. In every other case, also if the case is unknown, it hands
// over. If anything goes wrong here, systemd sends SIGTERM next, and the agent hands over
// too.
func stopForSystemd(ctx context.Context, out io.Writer) error {
	text := os.Getenv("MAINPID")
	if text == "" { // systemd runs this command also when the agent has ended by itself
		_, err := fmt.Fprintln(out, "no agent to stop: systemd names no main process ($MAINPID)")
		return err
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 1 {
		return fmt.Errorf("stop --systemd: $MAINPID is %q, not a process (it is for the unit's ExecStop=)", text)
	}
	agent, err := unix.PidfdOpen(pid, 0) // from now on the number cannot become another process's
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

// signalFor returns the signal to send to the agent, and why. Only a restart job is a
// restart. To take something else for a restart would leave the addresses without a
// holder for a lease.
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

// awaitEnd returns when the process is gone, or with an error after patience.
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
