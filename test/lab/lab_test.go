package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestEverybodyReachesEverybody(t *testing.T) {
	begin := Now()
	l := newLab(t, Options{})
	t.Logf("built in %v", Now()-begin)
	var sinks []*sink
	for _, h := range l.Hosts() {
		sinks = append(sinks, listen(t, h, 7, true))
	}
	for _, from := range l.Hosts() {
		for _, to := range sinks {
			if !reaches(dial(t, from, to.addr), 5*time.Second) {
				t.Errorf("%s does not reach %v", from.Name, to.addr)
			}
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		opts Options
		want string
	}{
		{Options{Prefix: "Sipa"}, "prefix"},
		{Options{Prefix: "a-b"}, "prefix"},
		{Options{RunID: "a/b"}, "run id"},
		{Options{Nodes: []string{"pbx1", "pbx1"}}, `node name "pbx1"`},
		{Options{Nodes: []string{"router"}}, `node name "router"`},
		{Options{Nodes: []string{"averyverylongname"}}, "12 lower-case"},
		{Options{Subnet: netip.MustParsePrefix("10.0.0.0/8")}, "IPv4 /24"},
		{Options{Nodes: make([]string, 81)}, "at most 80"},
	} {
		l, err := New(c.opts)
		if err == nil {
			l.Close()
			t.Errorf("%+v: accepted", c.opts)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %q does not say %q", c.opts, err, c.want)
		}
	}
}

// Two labs use the same addresses. A listener in one lab must not exist in the other:
// there the kernel must refuse the port.
func TestTwoLabsDoNotMeet(t *testing.T) {
	a, b := newLab(t, Options{}), newLab(t, Options{})
	echo := listen(t, a.Node(0), 7, true)
	if !reaches(dial(t, a.Phone(), echo.addr), 5*time.Second) {
		t.Fatal("the first lab's phone does not reach its node")
	}
	heard := echo.count.Load()
	conn := dial(t, b.Phone(), echo.addr)
	within(t, 5*time.Second, "port unreachable in the second lab", func() error {
		_, _ = conn.Write([]byte("stray"))
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 64)); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("read: %v", err)
		}
		return nil
	})
	if n := echo.count.Load(); n != heard {
		t.Errorf("%d datagrams crossed from one lab to the other", n-heard)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before, err := net.Interfaces()
	must(t, err)
	l := newLab(t, Options{})
	if n := len(namespacesOf(t, l.RunName())); n != 6 {
		t.Fatalf("%d namespaces, want switch, router, phone and 3 nodes", n)
	}
	p, err := l.Node(0).Start(helper("parent"))
	must(t, err)
	pids := append(childrenOf(t, p), p.Pid)
	if _, err := l.ObserveARP(0, l.VIP(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Phone().ObserveSIP(sip(l.VIP(1)), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ObserveAddresses(); err != nil {
		t.Fatal(err)
	}
	ids := map[namespaceID]bool{}
	for _, n := range l.all {
		ids[n.id] = true
	}

	var wait sync.WaitGroup
	for range 3 { // as a signal handler and a deferred call would
		wait.Go(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()

	if names := namespacesOf(t, l.RunName()); len(names) > 0 {
		t.Errorf("namespaces left: %v", names)
	}
	for _, pid := range pids {
		within(t, 2*time.Second, "end of every process", func() error { return gone(pid) })
	}
	within(t, 5*time.Second, "end of this process's threads in the namespaces", func() error {
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		for _, task := range tasks {
			if id, err := identify(task); err == nil && ids[id] {
				return fmt.Errorf("%s is still inside", task)
			}
		}
		return err
	})
	if _, err := os.Stat(l.DataDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data directory: %v, want it gone", err)
	}
	after, err := net.Interfaces()
	must(t, err)
	if len(after) != len(before) {
		t.Errorf("interfaces: %d before, %d after", len(before), len(after))
	}
	if _, err := l.Node(0).Start(helper("idle")); err == nil {
		t.Error("a closed lab started a process")
	}
	if _, err := l.ObserveARP(0, l.VIP(1)); err == nil {
		t.Error("a closed lab observes")
	}
}

// childrenOf returns the process ids that the helper `parent` printed.
func childrenOf(t *testing.T, p *Process) []int {
	t.Helper()
	var pids []int
	within(t, 10*time.Second, "both children", func() error {
		pids = nil
		for line := range strings.Lines(p.Output()) {
			var pid int
			if _, err := fmt.Sscanf(line, "child %d", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
		if len(pids) < 2 {
			return fmt.Errorf("output %q", p.Output())
		}
		return nil
	})
	return pids
}

// A killed run cannot clean up. Its process dies with it, and the next run's sweep
// removes the rest. The sweep leaves a living run alone.
func TestSweepRemovesWhatAKilledRunLeft(t *testing.T) {
	const prefix = "sipt"
	out := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(out)
	must(t, err)
	defer file.Close()
	cmd := exec.Command(os.Args[0], prefix)
	cmd.Env = append(os.Environ(), helperEnv+"=leave")
	cmd.Stdout, cmd.Stderr = file, file
	must(t, cmd.Start())
	var run string
	within(t, 20*time.Second, "the run to be built", func() error {
		b, err := os.ReadFile(out)
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(string(b), "built %s", &run); err != nil {
			return fmt.Errorf("%w in %q", err, b)
		}
		return nil
	})
	parent := &Process{Log: filepath.Join(os.TempDir(), run, "pbx1-parent.log")}
	pids := childrenOf(t, parent)

	if _, err := Sweep(prefix); err != nil {
		t.Fatal(err)
	}
	if n := len(namespacesOf(t, run)); n != 6 {
		t.Fatalf("%d of 6 namespaces left after a sweep beside a living run", n)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"
	swept, err := Sweep(prefix)
	must(t, err)
	t.Logf("swept %v", swept)
	if names := namespacesOf(t, run); len(names) > 0 {
		t.Errorf("left after the sweep: %v", names)
	}
	if _, err := os.Stat(filepath.Join(os.TempDir(), run)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data directory after the sweep: %v", err)
	}
	for _, pid := range pids {
		must(t, gone(pid))
	}
}

func TestRunNames(t *testing.T) {
	run := runName{"sipa", 4242, 123456, "ab12"}
	if got, ok := parseRunName(run.String() + "-pbx1"); !ok || got != run {
		t.Errorf("%s-pbx1 parsed as %+v, %v", run, got, ok)
	}
	for _, name := range []string{"", "sipa", "sipa-1-2", "cni-1234-5678-abcd-ABCD", "sipa-x-1-1", "sipa-99999999999999999999-1-1"} {
		if got, ok := parseRunName(name); ok && got.prefix == "sipa" {
			t.Errorf("%q taken for %+v", name, got)
		}
	}
	start, err := startTime(os.Getpid())
	must(t, err)
	if r := (runName{"sipa", os.Getpid(), start, "x"}); !r.alive() {
		t.Error("this very process counts as dead")
	}
	if r := (runName{"sipa", os.Getpid(), start + 1, "x"}); r.alive() {
		t.Error("another process with the same id counts as alive")
	}
}

func TestProcess(t *testing.T) {
	l := newLab(t, Options{Nodes: []string{"pbx1"}, DataDir: t.TempDir()})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	polite, err := l.Node(0).Start(helper("polite"))
	must(t, err)
	within(t, 10*time.Second, "the program to be ready", func() error {
		if !strings.Contains(polite.Output(), "ready") {
			return errors.New(polite.Output())
		}
		return nil
	})
	if id, err := identify(fmt.Sprintf("/proc/%d/ns/net", polite.Pid)); err != nil || id != l.Node(0).ns.id {
		t.Errorf("process is in namespace %v, %v; want %v", id, err, l.Node(0).ns.id)
	}
	must(t, polite.Stop())
	within(t, 5*time.Second, "the process to be stopped", func() error { return inState(polite.Pid, "T") })
	must(t, polite.Cont())
	must(t, polite.Terminate(ctx))
	if !strings.HasSuffix(polite.Output(), "bye\n") {
		t.Errorf("output %q, want it to end with bye", polite.Output())
	}
	if err := polite.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v, want %v", err, os.ErrProcessDone)
	}

	parent, err := l.Node(0).Start(helper("parent"))
	must(t, err)
	pids := childrenOf(t, parent)
	parent.Kill()
	within(t, 5*time.Second, "end of the child in the process group", func() error { return gone(pids[0]) })
	if gone(pids[1]) == nil {
		t.Error("a child of another session died with the process group")
	}
	var exit *exec.ExitError
	if err := parent.Wait(ctx); !errors.As(err, &exit) {
		t.Errorf("wait: %v, want an exit error", err)
	}

	hasty, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	idle, err := l.Node(0).Start(helper("idle"))
	must(t, err)
	if err := idle.Wait(hasty); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for what does not end: %v", err)
	}
	if _, err := l.Node(0).Start(Spec{Path: "/nonexistent"}); err == nil || !strings.Contains(err.Error(), "start nonexistent on pbx1") {
		t.Errorf("start of nothing: %v", err)
	}
	if out, err := l.Node(0).Run(ctx, "cat", "/proc/net/dev"); err != nil || !strings.Contains(out, "eth0") {
		t.Errorf("run: %q, %v", out, err)
	}
	if _, err := l.Node(0).Run(ctx, "false"); err == nil {
		t.Error("run of false: no error")
	}
}

func inState(pid int, want string) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	if state := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]; state != want {
		return fmt.Errorf("state %s, want %s", state, want)
	}
	return nil
}

func TestDo(t *testing.T) {
	l := newLab(t, Options{Nodes: []string{"pbx1"}})
	failure := errors.New("told")
	if err := l.Phone().Do(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error of the function: %v", err)
	}
	if err := l.Phone().Do(func() error { runtime.Goexit(); return nil }); err == nil || !strings.Contains(err.Error(), "ended its goroutine") {
		t.Errorf("goroutine ended inside: %v", err)
	}
}
