package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sipalive/control"
	"sipalive/platform"
)

// A locked command has two processes over it: `sipalive lock`, which hears from the
// agent, and the guard, the command's parent. Each of them knows the end of the lease and
// kills the command's process group before it. The guard also kills it at once when
// `sipalive lock` is gone. So either of the two may be frozen or killed. If both are
// killed, the command is killed too (PR_SET_PDEATHSIG), but not the processes it has
// started.
const (
	guardOrders = 3 // descriptor: "until NS MARGIN", "stop"; when it closes, the guard kills
	guardWords  = 4 // descriptor: "started PID", then one of "exit N", "failed N TEXT", "lost"
	guardLook   = 20 * time.Millisecond

	// How many margins (elect.Margin) before the end of the lease the command is sent
	// SIGTERM, and SIGKILL.
	askBefore, killBefore = 4, 2
)

// ending is how a locked command ended.
type ending struct {
	code int
	err  string // why it could not be run
	lost bool   // it was killed because of the lease
}

// guard is the guard as `sipalive lock` sees it.
type guard struct {
	cmd    *exec.Cmd
	orders *os.File
	until  int64
	margin time.Duration
	group  chan int
	pid    int // of the command and of its group
	ended  chan ending
}

func startGuard(argv, env []string, stdin *os.File, held control.LockLevel, agent []string) (*guard, error) {
	ordersOut, ordersIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	wordsOut, wordsIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", slices.Concat([]string{"lock-guard"}, agent, []string{"--"}, argv)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, os.Stderr
	if stdin != nil {
		cmd.Stdin = stdin
	}
	cmd.ExtraFiles = []*os.File{ordersOut, wordsIn}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // killing this process's group leaves the guard alive
	g := &guard{cmd: cmd, orders: ordersIn, group: make(chan int, 1), ended: make(chan ending, 1)}
	// The deadline first: without one the guard starts nothing.
	g.renew(held)
	err = cmd.Start()
	ordersOut.Close()
	wordsIn.Close()
	if err != nil {
		return nil, err
	}
	go g.listen(wordsOut)
	return g, nil
}

// listen takes the guard's words. If the guard ends without a last word, it was killed,
// and the command with it; then listen kills what the command had started.
func (g *guard) listen(words *os.File) {
	end, said, group := ending{lost: true}, false, 0
	for lines := bufio.NewScanner(words); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "started":
			fmt.Sscan(rest, &group)
			g.group <- group
		case "exit":
			end, said = ending{}, true
			fmt.Sscan(rest, &end.code)
		case "failed":
			code, text, _ := strings.Cut(rest, " ")
			end, said = ending{err: text}, true
			fmt.Sscan(code, &end.code)
		case "lost":
			said = true
		}
	}
	if !said {
		killGroup(group)
	}
	_ = g.cmd.Wait()
	g.ended <- end
}

func (g *guard) renew(l control.LockLevel) {
	g.until, g.margin = l.Until, l.Margin
	_, _ = fmt.Fprintf(g.orders, "until %d %d\n", l.Until, int64(l.Margin))
}

// stop makes the guard end the command as at the end of a lease: SIGTERM first.
func (g *guard) stop() { _, _ = io.WriteString(g.orders, "stop\n") }

func (g *guard) signal(s syscall.Signal) {
	if g.knows() {
		_ = unix.Kill(-g.pid, s)
	}
}

// knows reads the command's process id if it is there by now, and reports whether it is
// known.
func (g *guard) knows() bool {
	select {
	case g.pid = <-g.group:
	default:
	}
	return g.pid > 0
}

// deadline returns a timer for when this process kills the command itself; it fires at
// least once a second.
func (g *guard) deadline() <-chan time.Time {
	return time.After(max(time.Millisecond, min(time.Duration(g.until-platform.BootNow())-g.margin, time.Second)))
}

// kill kills the command if its lease is really about to end.
func (g *guard) kill() {
	if time.Duration(g.until-platform.BootNow()) > g.margin {
		return
	}
	if g.knows() {
		killGroup(g.pid)
	}
	_ = g.cmd.Process.Kill()
}

func killGroup(pid int) {
	if pid > 0 {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

func newLockGuardCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "lock-guard -- COMMAND...", Hidden: true, Args: cobra.MinimumNArgs(1)}
	runDir := addRunDir(cmd)
	id := cmd.Flags().Uint64("id", 0, "of the client, at the agent")
	keep := cmd.Flags().Bool("keep", false, "the lock stays kept if it is lost")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		runtime.LockOSThread() // the end of this thread would kill the command
		// The guard ends with its orders, not by a signal.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
		lost, err := guardCommand(args, os.NewFile(guardOrders, "orders"), os.NewFile(guardWords, "words"))
		if lost { // the client may be frozen, and the agent, if it is alive, would wait for its word
			_ = control.NewClient(*runDir).EndLock(cmd.Context(), control.LockEnd{ID: *id, Keep: *keep})
		}
		return err
	}
	return cmd
}

// order is one line to the guard.
type order struct {
	until  int64
	margin time.Duration
	stop   bool
}

// guardCommand runs a command until it ends or its time is over.
func guardCommand(argv []string, from io.Reader, words *os.File) (lost bool, err error) {
	unix.CloseOnExec(guardOrders)
	unix.CloseOnExec(guardWords)
	orders := make(chan order)
	go readOrders(from, orders)
	now, alive := <-orders
	if !alive {
		return false, errNo
	}
	if now.left() <= askBefore*now.margin {
		fmt.Fprintln(words, "lost")
		return true, words.Close()
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		code := exitCannotRun
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			code = exitNotFound
		}
		fmt.Fprintf(words, "failed %d %s\n", code, errorLine(err))
		return false, nil
	}
	pid := cmd.Process.Pid
	fmt.Fprintf(words, "started %d\n", pid)
	// Where this is permitted: what kills in time should not have to wait for a
	// processor. The command was started before, without this priority.
	_ = unix.Setpriority(unix.PRIO_PGRP, 0, -20)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	lost = holdUntil(now, orders, exited, pid)
	killGroup(pid) // what it left behind would run on without the lock; it is not reaped yet, so the number is still its own
	_ = cmd.Wait()
	if lost {
		fmt.Fprintln(words, "lost")
		return true, words.Close()
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := status.ExitStatus()
	if status.Signaled() {
		code = exitSignal + int(status.Signal())
	}
	fmt.Fprintf(words, "exit %d\n", code)
	return false, nil
}

func (o order) left() time.Duration { return time.Duration(o.until - platform.BootNow()) }

func readOrders(from io.Reader, to chan<- order) {
	defer close(to)
	for lines := bufio.NewScanner(from); lines.Scan(); {
		var o order
		if lines.Text() == "stop" {
			o.stop = true
		} else if n, _ := fmt.Sscanf(lines.Text(), "until %d %d", &o.until, &o.margin); n != 2 {
			continue
		}
		to <- o
	}
}

// holdUntil returns when the command has exited, or has been killed because its time is
// over: SIGTERM at askBefore, SIGKILL at killBefore. It looks often and does not trust
// one timer: timers stand still while the machine sleeps, and the lease does not.
func holdUntil(now order, orders <-chan order, exited <-chan struct{}, pid int) (lost bool) {
	look := time.NewTicker(guardLook)
	defer look.Stop()
	asked := false
	for {
		left := now.left()
		switch {
		case left <= killBefore*now.margin:
			killGroup(pid)
			lost = true
		case left <= askBefore*now.margin && !asked:
			asked = true
			_ = unix.Kill(-pid, unix.SIGTERM)
		}
		var soon <-chan time.Time
		if next := left - killBefore*now.margin; next > 0 && next < guardLook {
			soon = time.After(next)
		}
		select {
		case <-exited:
			return lost || asked
		case o, alive := <-orders:
			switch {
			case !alive: // `sipalive lock`, which hears from the agent, is gone
				killGroup(pid)
				<-exited
				return true
			case o.stop:
				now.until = min(now.until, platform.BootNow()+int64(askBefore*now.margin))
			case !asked:
				now = o
			}
		case <-look.C:
		case <-soon:
		}
	}
}
