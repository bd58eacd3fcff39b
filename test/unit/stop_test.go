package unit

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// standIn is a process in the agent's place. It reports which signal ends it.
type standIn struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startStandIn(t *testing.T, script string) *standIn {
	t.Helper()
	cmd := exec.Command("sh", "-c", script+`
		trap 'echo SIGTERM; exit' TERM
		echo ready
		while :; do sleep 0.02; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	tether(t, cmd)
	s := &standIn{cmd, bufio.NewReader(out)}
	if line := s.says(t); line != "ready" {
		t.Fatalf("the stand-in says %q", line)
	}
	return s
}

func (s *standIn) says(t *testing.T) string {
	t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the stand-in says nothing: %v", err)
	}
	return strings.TrimSpace(line)
}

// stopLine returns the unit's ExecStop=, with a binary that exists here.
func stopLine(t *testing.T, binary string) []string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ExecStop=/usr/bin/sipalive (.*)$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the unit has no ExecStop=/usr/bin/sipalive")
	}
	return append([]string{binary}, strings.Fields(string(m[1]))...)
}

// execStop runs the unit's ExecStop= as systemd does, and also reaps the main process
// meanwhile.
func execStop(t *testing.T, binary, mainPID, bus string) (said string, code int, took time.Duration) {
	t.Helper()
	argv := stopLine(t, binary)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"DBUS_SYSTEM_BUS_ADDRESS=" + bus}
	if mainPID != "" {
		cmd.Env = append(cmd.Env, "MAINPID="+mainPID)
	}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), code, time.Since(began)
}

// TestExecStop: only a restart ends the agent in place.
func TestExecStop(t *testing.T) {
	tests := []struct {
		name, job, odd string
		unknown        bool // systemd does not know the process
		want           string
		says           string // a part of what ExecStop= prints
		slow           bool   // systemd does not answer
	}{
		{name: "restart", job: "restart", want: "SIGUSR2", says: "systemd restarts the unit: leaving everything to the successor"},
		{name: "stop and shutdown", job: "stop", want: "SIGTERM", says: "handing over: systemd's job is stop"},
		{name: "stop overtaken by a start", job: "start", want: "SIGTERM", says: "handing over: systemd's job is start"},
		{name: "a job that nobody knows", job: "restart-or-so", want: "SIGTERM", says: "handing over: systemd's job is restart-or-so"},
		{name: "no job", want: "SIGTERM", says: "handing over: systemd has no job for the unit"},
		{name: "no unit", job: "restart", unknown: true, want: "SIGTERM", says: "does not belong to any loaded unit"},
		{name: "job gone", job: "restart", odd: "job gone", want: "SIGTERM", says: "ask systemd for JobType of " + string(jobPath)},
		{name: "another type", job: "restart", odd: "another type", want: "SIGTERM", says: "ask systemd for Job of " + string(unitPath)},
		{name: "no answer", job: "restart", odd: "no answer", want: "SIGTERM", says: "context deadline exceeded", slow: true},
		{name: "no answer about the job", job: "restart", odd: "no answer about the job", want: "SIGTERM", says: "context deadline exceeded", slow: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bus := startBus(t)
			m := startManager(t, bus)
			m.is(tt.odd)
			agent := startStandIn(t, "trap 'echo SIGUSR2; exit' USR2")
			if !tt.unknown {
				m.runs(tt.job, agent.cmd.Process.Pid)
			}
			judgeStop(t, binary, bus, agent, tt.want, tt.says, tt.slow)
		})
	}
}

func judgeStop(t *testing.T, binary, bus string, agent *standIn, want, says string, slow bool) {
	t.Helper()
	said, code, took := execStop(t, binary, fmt.Sprint(agent.cmd.Process.Pid), bus)
	if got := agent.says(t); got != want {
		t.Errorf("the agent got %s, want %s", got, want)
	}
	if code != 0 || !strings.Contains(said, says) || strings.Contains(said, "\n") {
		t.Errorf("exit %d, %q, want 0 and one line with %q", code, said, says)
	}
	if slow != (took >= 2*time.Second) || took > 15*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestExecStopWithoutBus: there is no bus, or a bus that says nothing, or one without
// systemd.
func TestExecStopWithoutBus(t *testing.T) {
	deaf := filepath.Join(t.TempDir(), "deaf")
	l, err := net.Listen("unix", deaf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, tt := range []struct {
		name, bus, says string
		slow            bool
	}{
		{"none", "unix:path=/nonexistent/bus", "no such file or directory", false},
		{"deaf", "unix:path=" + deaf, "context deadline exceeded", true},
		{"without systemd", startBus(t), "org.freedesktop.systemd1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			agent := startStandIn(t, "trap 'echo SIGUSR2; exit' USR2")
			judgeStop(t, binary, tt.bus, agent, "SIGTERM", tt.says, tt.slow)
		})
	}
}

// TestExecStopWithoutAgent: systemd runs ExecStop= even if the agent has ended by itself.
func TestExecStopWithoutAgent(t *testing.T) {
	const bus = "unix:path=/nonexistent/bus"
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pid, says string
		code      int
	}{
		{"", "no agent to stop: systemd names no main process ($MAINPID)", 0},
		{fmt.Sprint(gone.Process.Pid), "", 0},
		{"self", `stop --systemd: $MAINPID is "self", not a process (it is for the unit's ExecStop=)`, 1},
		{"1", `stop --systemd: $MAINPID is "1", not a process (it is for the unit's ExecStop=)`, 1},
	} {
		if said, code, _ := execStop(t, binary, tt.pid, bus); said != tt.says || code != tt.code {
			t.Errorf("MAINPID=%s: exit %d, %q, want %d, %q", tt.pid, code, said, tt.code, tt.says)
		}
	}
}

// TestExecStopStuckAgent: if an agent does not leave, ExecStop= soon leaves it to
// systemd's signals.
func TestExecStopStuckAgent(t *testing.T) {
	bus := startBus(t)
	m := startManager(t, bus)
	agent := startStandIn(t, "trap 'echo SIGUSR2' USR2")
	m.runs("restart", agent.cmd.Process.Pid)
	said, code, took := execStop(t, binary, fmt.Sprint(agent.cmd.Process.Pid), bus)
	if code != 1 || !strings.HasSuffix(said, "has not left after 5s (systemd ends it next)") || took > 20*time.Second {
		t.Errorf("exit %d after %v: %q", code, took, said)
	}
	if got := agent.says(t); got != "SIGUSR2" {
		t.Errorf("the agent got %s first", got)
	}
}
