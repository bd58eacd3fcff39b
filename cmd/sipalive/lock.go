package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/platform"
)

// The exit codes of `sipalive lock`, besides the command's own.
const (
	exitLost        = 123 // the lease was lost, and the command was killed
	exitNotObtained = 124 // not within --wait; as timeout(1)
	exitCannotRun   = 126
	exitNotFound    = 127
	exitSignal      = 128 // plus the number of the signal that ended the command
)

// exitError ends the process with a code, and with one line or none on stderr.
type exitError struct {
	code int
	text string
}

func (e exitError) Error() string { return e.text }

func newLockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock NAME [--wait 10m] [--keep 15m --until CMD] -- COMMAND...",
		Short: "Run a command on one node of the cluster at a time",
		Long: `Run a command on one node of the cluster at a time, under a lease that a majority
of the voters grants. Any name will do: whoever uses the same one takes turns. The
command finds its name in SIPALIVE_LOCK and in SIPALIVE_EPOCH a number that rises
from one holder to the next: what it writes to may refuse a lower one.

If the lease is lost (no majority is heard, the agent is gone or frozen), the
command's process group is sent SIGTERM and, before the lease ends, SIGKILL. What it
moves into another session, or has a service manager start, is left alone. It reads
nothing from a terminal.

With --keep the lock outlives this node's reboot: nobody else obtains it until the
shell line CMD succeeds here after the reboot (asked every 2s, as the user who runs
this), or for that long, counted from the node's last word and again from its return.
A command that ends with 0 has the reboot under way, and the lock stays kept; one
that ends with 1 to 127 has not, and the lock is released.

It exits with the command's own code (128+N: ended by signal N), with 124 if the lock
was not obtained within --wait, 123 if it was lost, 126 or 127 if the command could
not be run, 2 on misuse, and 3 if no agent answers.`,
		Example: `  sipalive lock cdr-import -- /usr/local/bin/import-cdrs
  sipalive lock db-reboot --keep 15m --until 'mysqladmin ping' -- systemctl reboot`,
		DisableFlagsInUseLine: true,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if cmd.ArgsLenAtDash() != 1 || len(args) < 2 || args[0] == "" || args[1] == "" {
			return misuse(cmd, "takes a name, then -- and a command")
		}
		return nil
	}
	runDir := addRunDir(cmd)
	wait := cmd.Flags().Duration("wait", 0, "give up after so long (default: wait for ever)")
	keep := cmd.Flags().Duration("keep", 0, "keep the lock over this node's reboot, at most so long, e.g. 15m")
	until := cmd.Flags().String("until", "", "shell line that succeeds once this node has recovered")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case cmd.Flags().Changed("wait") && *wait <= 0:
			return misuse(cmd, "--wait has to be a time, such as --wait 10m")
		case (*keep != 0) != (*until != ""):
			return misuse(cmd, "--keep and --until go together")
		case cmd.Flags().Changed("keep") && *keep < time.Second:
			return misuse(cmd, "--keep has to be a time from 1s, such as --keep 15m")
		}
		l := &locked{cmd: cmd, client: control.NewClient(*runDir), argv: args[1:], wait: *wait, runDir: *runDir,
			req: control.LockRequest{Name: args[0], Keep: control.Millis(*keep), Until: *until}}
		return l.run(cmd.Context())
	}
	return cmd
}

// locked is one run of `sipalive lock`.
type locked struct {
	cmd    *cobra.Command
	client *control.Client
	req    control.LockRequest
	argv   []string
	wait   time.Duration
	runDir string

	levels  chan control.LockLevel
	ended   chan error // the end of the conversation with the agent
	signals chan os.Signal
	id      uint64
}

func (l *locked) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.levels, l.ended, l.signals = make(chan control.LockLevel), make(chan error, 1), make(chan os.Signal, 8)
	signal.Notify(l.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		l.ended <- l.client.Lock(ctx, l.req, func(v control.LockLevel) {
			select {
			case l.levels <- v:
			case <-ctx.Done():
			}
		})
	}()
	held, err := l.obtain()
	if err != nil {
		l.say(false)
		return err
	}
	return l.guarded(held)
}

// obtain waits for the lock. It says on stderr why it waits.
func (l *locked) obtain() (control.LockLevel, error) {
	var late <-chan time.Time
	if l.wait > 0 {
		late = time.After(l.wait)
	}
	// If the lock comes within half a second, nothing is printed.
	quiet, why, said := time.After(time.Second/2), "no answer yet", ""
	for loud := false; ; {
		if loud && why != said {
			said = why
			fmt.Fprintf(l.cmd.ErrOrStderr(), "lock %s: waiting: %s\n", l.req.Name, why)
		}
		select {
		case v := <-l.levels:
			l.id = v.ID
			switch left := time.Duration(v.Until - platform.BootNow()); {
			case v.Lost != "":
				return v, exitError{exitLost, fmt.Sprintf("lock %s: lost: %s; the command was not started", l.req.Name, v.Lost)}
			case v.Epoch != 0 && left > askBefore*v.Margin:
				return v, nil
			case v.Epoch != 0: // this process, or the agent, was frozen: there may be a newer word
				why = "its lease was over before this process could use it"
			}
			if v.Waiting != "" {
				why = v.Waiting
			}
		case <-quiet:
			loud = true
		case err := <-l.ended:
			return control.LockLevel{}, err
		case s := <-l.signals:
			return control.LockLevel{}, exitError{exitSignal + int(s.(syscall.Signal)), "lock " + l.req.Name + ": not obtained: interrupted"}
		case <-late:
			return control.LockLevel{}, exitError{exitNotObtained, fmt.Sprintf("lock %s: not obtained within %s: %s", l.req.Name, l.wait, why)}
		}
	}
}

// say tells the agent, as the client's last word, that the command is over.
func (l *locked) say(keep bool) {
	if l.id == 0 {
		return
	}
	// If the agent does not hear it, the lease ends by itself.
	_ = l.client.EndLock(context.Background(), control.LockEnd{ID: l.id, Keep: keep})
}

// guarded runs the command under a guard, and passes on to the guard what the agent says
// about the lease.
func (l *locked) guarded(held control.LockLevel) error {
	g, err := startGuard(l.argv, l.environment(held), l.stdin(), held, l.agent())
	if err != nil {
		l.say(false)
		return exitError{exitCannotRun, fmt.Sprintf("lock %s: %v", l.req.Name, err)}
	}
	why, signalled, agent := "the agent did not renew it in time", false, l.ended
	for {
		select {
		case v := <-l.levels:
			if v.Lost != "" {
				why = v.Lost
				g.stop()
			} else {
				g.renew(v)
			}
		case err := <-agent:
			agent, why = nil, "the agent went away: "+err.Error()
		case s := <-l.signals:
			signalled = true
			g.signal(s.(syscall.Signal))
		case <-g.deadline():
			g.kill() // in case the guard is frozen: its own deadline came earlier
		case end := <-g.ended:
			return l.conclude(end, why, signalled)
		}
	}
}

// conclude tells the agent, and the caller, how the command ended.
func (l *locked) conclude(end ending, why string, signalled bool) error {
	name := l.req.Name
	keep := l.req.Keep != 0 && (end.lost || signalled || end.code == 0 || end.code >= exitSignal)
	l.say(keep)
	if keep {
		fmt.Fprintf(l.cmd.ErrOrStderr(), "lock %s: kept for this node until its reboot and then %q, at most %s\n", name, l.req.Until, time.Duration(l.req.Keep))
	}
	switch {
	case end.lost:
		return exitError{exitLost, fmt.Sprintf("lock %s: lost: %s; the command was killed", name, why)}
	case end.err != "":
		return exitError{end.code, fmt.Sprintf("lock %s: %s", name, end.err)}
	case end.code != 0:
		return exitError{code: end.code}
	}
	return nil
}

// agent returns the flags by which the guard reaches the agent.
func (l *locked) agent() []string {
	return []string{"--run-dir", l.runDir, fmt.Sprintf("--id=%d", l.id), fmt.Sprintf("--keep=%t", l.req.Keep != 0)}
}

func (l *locked) environment(held control.LockLevel) []string {
	return append(os.Environ(), "SIPALIVE_LOCK="+l.req.Name, fmt.Sprintf("SIPALIVE_EPOCH=%d", held.Epoch), "SIPALIVE_NODE="+held.Node)
}

// stdin returns what the command reads: nothing instead of a terminal, because a process
// group in the background that reads a terminal is stopped.
func (l *locked) stdin() *os.File {
	if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); errors.Is(err, unix.ENOTTY) {
		return os.Stdin
	}
	return nil
}
