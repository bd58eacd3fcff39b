package hooks

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestExecEnvironment(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("WATCHDOG_USEC", "1")
	t.Setenv("GODEBUG", "madvdontneed=1")
	r := newTestRunner(t, Options{})
	j := newJournal()
	ev := Event{VIP: "vip1", Address: "192.0.2.101", Node: "pbx2", Previous: "pbx1", Epoch: 3,
		Reason: "pbx1: no answer\nEVIL=1\x00\x1b[31m"}
	a := Action{On: Prepare, Exec: []string{"/usr/bin/env"}}
	r.Start("vip1", Prepare, 7, ev, []Action{a}, j.report, j.done)
	want := `PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SIPALIVE_EVENT=prepare
SIPALIVE_VIP=vip1
SIPALIVE_ADDRESS=192.0.2.101
SIPALIVE_NODE=pbx2
SIPALIVE_PREVIOUS=pbx1
SIPALIVE_EPOCH=7
SIPALIVE_REASON=pbx1: no answer EVIL=1[31m
SIPALIVE_TEXT=
`
	if d := cmp.Diff(want, j.wait(t)[0].Output); d != "" {
		t.Errorf("environment (-want +got):\n%s", d)
	}
}

func TestExecSurroundings(t *testing.T) {
	r := newTestRunner(t, Options{})
	o := runOne(t, r, sh("pwd; cat; echo out; echo err >&2; ps -o pgid= -p $$ | tr -d ' \\n'; echo = $$"))
	lines := strings.Split(strings.TrimSpace(o.Output), "\n")
	if len(lines) != 4 || lines[0] != "/" || lines[1] != "out" || lines[2] != "err" {
		t.Fatalf("output %q", o.Output)
	}
	if pgid, pid, _ := strings.Cut(lines[3], "= "); pgid != pid {
		t.Errorf("process %s is in group %s", pid, pgid)
	}
}

func TestExecErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	plain := file("plain", "#!/bin/sh\n", 0o644)
	orphan := file("orphan", "#!/no/such/shell\n", 0o755)
	noline := file("noline", "echo\n", 0o755)
	tests := []struct {
		argv []string
		want string
	}{
		{[]string{"/bin/sh", "-c", "exit 3"}, "exec /bin/sh: exit status 3"},
		{[]string{"/bin/sh", "-c", "kill -TERM $$"}, "exec /bin/sh: signal: terminated"},
		{[]string{missing}, "exec " + missing + ": no such file or directory (is it installed on this node?)"},
		{[]string{plain}, "exec " + plain + ": permission denied (executable for the agent's user?)"},
		{[]string{orphan}, "exec " + orphan + ": no such file or directory (the interpreter in its first line is missing)"},
		{[]string{noline}, "exec " + noline + ": exec format error (a script needs a first line such as #!/bin/sh)"},
		{[]string{"sh"}, "exec sh: not an absolute path (the agent searches no PATH)"},
		{[]string{"/bin/echo", "a\x00b"}, "exec /bin/echo: an argument holds a NUL byte"},
	}
	r := newTestRunner(t, Options{})
	for _, tt := range tests {
		if o := runOne(t, r, Action{Exec: tt.argv}); o.OK || o.Err != tt.want {
			t.Errorf("%q:\ngot  %s\nwant %s", tt.argv, o.Err, tt.want)
		}
	}
}

// living returns the processes of a group that are not zombies.
func living(t *testing.T, pgid int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone in the meantime
		}
		_, rest, _ := bytes.Cut(text, []byte(") "))
		f := strings.Fields(string(rest)) // state ppid pgrp ...
		if len(f) > 2 && f[2] == strconv.Itoa(pgid) && f[0] != "Z" && f[0] != "X" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func groupOf(t *testing.T, o Outcome) int {
	t.Helper()
	line, _, _ := strings.Cut(o.Output, "\n")
	pgid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("no process id in %q", o.Output)
	}
	return pgid
}

func TestExecTimeoutKillsTheWholeGroup(t *testing.T) {
	r := newTestRunner(t, Options{})
	a := sh("echo $$; trap '' TERM; sleep 1000 & (sleep 1000 & sleep 1000) & sleep 1000")
	a.Timeout = 300 * time.Millisecond
	began := time.Now()
	o := runOne(t, r, a)
	if took := time.Since(began); took < a.Timeout || took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	if want := "exec /bin/sh: no end within 300ms, its process group was killed"; o.Err != want || o.OK {
		t.Errorf("got  %s\nwant %s", o.Err, want)
	}
	if left := living(t, groupOf(t, o)); len(left) > 0 {
		t.Errorf("still alive: %v", left)
	}
}

func TestExecEndsWhatItLeftRunning(t *testing.T) {
	r := newTestRunner(t, Options{})
	o := runOne(t, r, sh("echo $$; sleep 1000 & sleep 1000 >/dev/null 2>&1 & exit 0"))
	if !o.OK || o.Note != "exec /bin/sh: processes it left running were killed (use setsid or a service for a daemon)" {
		t.Errorf("%+v", o)
	}
	eventually(t, "the group ends", func() bool { return len(living(t, groupOf(t, o))) == 0 })
}

// TestExecDaemonHoldsThePipe: a process in its own session is left alone and does not
// delay the action.
func TestExecDaemonHoldsThePipe(t *testing.T) {
	r := newTestRunner(t, Options{})
	pidFile := filepath.Join(t.TempDir(), "pid")
	o := runOne(t, r, sh("setsid sh -c 'echo $$ > "+pidFile+"; exec sleep 1000' & while [ ! -s "+pidFile+" ]; do sleep 0.01; done; echo done"))
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(daemon, unix.SIGKILL)
	if !o.OK || o.Output != "done\n" || o.Note != "" {
		t.Errorf("%+v", o)
	}
	if o.Took > 10*time.Second {
		t.Errorf("took %s", o.Took)
	}
	if err := unix.Kill(daemon, 0); err != nil {
		t.Errorf("the daemon is gone: %v", err)
	}
}

// TestExecUnkillable: SIGKILL does not end a program stuck in the kernel. Here the kill
// is left out instead.
func TestExecUnkillable(t *testing.T) {
	const timeout = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var pid int
	began := time.Now()
	res := runExec(ctx, timeout, program{Argv: []string{"/bin/sh", "-c", "echo here; sleep 1000"}}, account{}, func(p int) { pid = p })
	took := time.Since(began)
	killGroup(pid) // lets the goroutine end that still waits
	want := "exec /bin/sh: no end within 200ms, its process group was killed but did not die within 2s (stuck in the kernel)"
	if res.err == nil || res.err.Error() != want {
		t.Errorf("got  %v\nwant %s", res.err, want)
	}
	if res.output != "here\n" {
		t.Errorf("output %q", res.output)
	}
	if took > 15*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestExecFlood(t *testing.T) {
	r := newTestRunner(t, Options{})
	a := sh("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the end >&2; exit 4")
	o := runOne(t, r, a)
	if o.Err != "exec /bin/sh: exit status 4" {
		t.Fatalf("err %q after %s", o.Err, o.Took)
	}
	const all = 100_000_000 + len("\nthe end\n")
	cut := fmt.Sprintf("\n[cut: %d of %d bytes]\n", all-captureHead-captureTail, all)
	if !strings.HasPrefix(o.Output, "xxx") || !strings.Contains(o.Output, cut) || !strings.HasSuffix(o.Output, "x\nthe end\n") {
		t.Errorf("output of %d bytes: %.40q ... %q", len(o.Output), o.Output, o.Output[len(o.Output)-80:])
	}
	if len(o.Output) != captureHead+len(cut)+captureTail {
		t.Errorf("kept %d bytes", len(o.Output))
	}
}

func TestCapture(t *testing.T) {
	pattern := make([]byte, 3*(captureHead+captureTail))
	for i := range pattern {
		pattern[i] = 'a' + byte(i%26)
	}
	for _, size := range []int{0, 1, captureHead, captureHead + 1, captureHead + captureTail, captureHead + captureTail + 1, len(pattern)} {
		want := string(pattern[:size])
		if cut := size - captureHead - captureTail; cut > 0 {
			want = want[:captureHead] + fmt.Sprintf("\n[cut: %d of %d bytes]\n", cut, size) + want[size-captureTail:]
		}
		for _, step := range []int{1, 7, 4096, len(pattern)} {
			var c capture
			for rest := pattern[:size]; len(rest) > 0; rest = rest[min(step, len(rest)):] {
				c.Write(rest[:min(step, len(rest))])
			}
			if got := c.String(); got != want {
				t.Errorf("%d bytes in steps of %d: got %d bytes, want %d", size, step, len(got), len(want))
			}
		}
	}
	var c capture
	c.Write([]byte("a\x1b[2Jb\xffc\td\x00\n"))
	if got := c.String(); got != "a[2Jb?c\td\n" {
		t.Errorf("not printable: %q", got)
	}
}
