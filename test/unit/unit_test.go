// Package unit tests the systemd unit: with systemd's own tools, and by playing the
// service manager for the agent.
package unit

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sipalive/control"
	"sipalive/platform"
	"sipalive/test/cluster"
	"sipalive/test/lab"
	"sipalive/test/shipped"
)

const unitFile = "../../dist/systemd/sipalive.service"

// maxExposure is the highest score of `systemd-analyze security` that is allowed.
const maxExposure = 2.5

func TestSecurityScore(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", unitFile).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for sipalive.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no score in:\n%s", out)
	}
	score, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil || score > maxExposure {
		t.Errorf("exposure %s, at most %.1f is promised", m[1], maxExposure)
	}
	t.Logf("exposure level %s", m[1])
}

// TestVerify lets systemd verify the unit, with a program that exists here.
func TestVerify(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "sipalive.service")
	changed := strings.ReplaceAll(string(text), "/usr/bin/sipalive", "/bin/true")
	if changed == string(text) {
		t.Fatal("the unit does not start /usr/bin/sipalive")
	}
	if err := os.WriteFile(copied, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", copied).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestUnitSays(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify", "Restart=always", "StartLimitIntervalSec=0", "RuntimeDirectoryPreserve=yes",
		"CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF", "NoNewPrivileges=yes",
		"ExecReload=/usr/bin/sipalive reload",
		"ExecStop=/usr/bin/sipalive stop --systemd", "LimitRTTIME=1s:2s", "LimitMEMLOCK=infinity", "OOMScoreAdjust=-900", "OOMPolicy=continue",
		"RestrictRealtime=yes", "ProtectSystem=strict", "ReadWritePaths=-/etc/sipalive",
		"ReadOnlyPaths=-/etc/sipalive/sipalive.toml -/etc/sipalive/hooks -/etc/sipalive/checks -/etc/sipalive/freeswitch.password"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the unit does not say %s", line)
		}
	}
	if !regexp.MustCompile(`(?m)^WatchdogSec=\d+$`).Match(text) {
		t.Error("the unit sets no watchdog")
	}
	// FreeSWITCH's Debian unit has rr 89.
	if n, _, err := shipped.Policy(); err != nil || n <= 89 || n > 99 {
		t.Errorf("realtime priority %d, %v, want more than FreeSWITCH's 89", n, err)
	}
	// The setting would take the policy from all threads but the first.
	if regexp.MustCompile(`(?m)^CPUSchedulingResetOnFork=`).Match(text) {
		t.Error("the unit sets CPUSchedulingResetOnFork=")
	}
}

// TestSystemCalls: the unit's filter allows the system calls that the agent, its stop and
// its actions need, and not those that they must not make.
func TestSystemCalls(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllSubmatch(text, -1) {
		for _, word := range strings.Fields(string(m[2])) {
			for _, call := range systemCalls(t, word) {
				allowed[call] = len(m[1]) == 0
			}
		}
	}
	for _, call := range []string{"mlockall", "sched_getattr", "sched_setattr", "prlimit64", "capset", "bpf", "execve", "pidfd_open",
		"pidfd_send_signal", "kill", "waitid", "statfs", "mmap", "madvise"} {
		if !allowed[call] {
			t.Errorf("the unit's filter forbids %s", call)
		}
	}
	for _, call := range []string{"sched_setscheduler", "mount", "ptrace", "init_module", "reboot", "chroot"} {
		if allowed[call] {
			t.Errorf("the unit's filter allows %s", call)
		}
	}
}

// systemCalls expands a set such as @system-service. Any other word is a single call.
func systemCalls(t *testing.T, word string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(word, "@") {
		return []string{word}
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", word).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", word, err)
	}
	for _, line := range strings.Split(string(out), "\n")[1:] {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			calls = append(calls, systemCalls(t, line)...)
		}
	}
	return calls
}

// TestNotify plays the service manager. The agent must send READY=1 once, WATCHDOG=1 well
// within the interval while it runs, nothing while it is frozen, and STOPPING=1 when it
// is told to end. It runs with only the unit's capabilities.
func TestNotify(t *testing.T) {
	manager := listenNotify(t)
	c, err := cluster.Start(cluster.Options{Binary: binary, Nodes: []string{"pbx1"}, VIPs: 1, VIP: slowRelease, Agent: func(s lab.Spec) lab.Spec {
		s.Env = append(s.Env, "NOTIFY_SOCKET="+manager.path, "WATCHDOG_USEC=400000")
		s.Args = append([]string{"--bounding-set", "-all,+net_admin,+net_raw,+bpf", "--no-new-privs", s.Path}, s.Args...)
		s.Path = "setpriv"
		return s
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	manager.expect(t, "READY=1")
	for range 3 {
		manager.expect(t, "WATCHDOG=1")
	}
	ctx, cancel := cluster.Deadline(20 * time.Second)
	defer cancel()
	if err := c.WaitHeld(ctx, 0, "pbx1"); err != nil {
		t.Fatalf("with the unit's capabilities: %v\n%s", err, c.Agent(0).Output())
	}
	if st, err := c.Client(0).Status(ctx); err != nil || st.Fence != "bpf+lifetime" || st.FenceWeak {
		t.Errorf("with the unit's capabilities: fence %s, %s, %v", st.Fence, st.FenceMeans, err)
	}
	for _, line := range []string{`msg="scheduling other: beside realtime processes`, `msg="memory is not locked: short of memory, a takeover may wait for the disk"`} {
		if n := strings.Count(c.Agent(0).Output(), line); n != 1 {
			t.Errorf("the agent says %d times %s:\n%s", n, line, c.Agent(0).Output())
		}
	}
	frozen(t, c.Agent(0), manager)
	if err := c.Agent(0).Signal(15); err != nil {
		t.Fatal(err)
	}
	manager.expect(t, "STOPPING=1")
	// 40 s for the action, two leases and one OPTIONS for handing over, and the extra
	// time that each of them gets.
	manager.expect(t, "EXTEND_TIMEOUT_USEC=49400000")
	if err := c.Agent(0).Wait(ctx); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

// TestWhatItGot: the agent finds out what the unit gave it, and reports once what is
// missing. The runtime directory is on a disk here.
func TestWhatItGot(t *testing.T) {
	disk, err := os.MkdirTemp("/var/tmp", "sipalive-unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(disk) })
	if memory, err := platform.OnTmpfs(disk); err != nil || memory {
		t.Fatalf("%s is on no disk: %t, %v", disk, memory, err)
	}
	c, err := cluster.Start(cluster.Options{Binary: binary, Nodes: []string{"pbx1"}, VIPs: 1, Agent: func(s lab.Spec) lab.Spec {
		if err := os.Symlink(disk, s.Args[len(s.Args)-1]); err != nil { // of --run-dir
			t.Fatal(err)
		}
		return s.By("chrt", "-r", "95")
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := cluster.Deadline(20 * time.Second)
	defer cancel()
	var st control.Status
	if err := lab.WaitFor(ctx, "a status", func() (err error) { st, err = c.Client(0).Status(ctx); return err }); err != nil {
		t.Fatalf("%v\n%s", err, c.Agent(0).Output())
	}
	if st.Scheduling != "rr 95" || !st.MemoryLocked {
		t.Errorf("status says scheduling %q, memory locked %t", st.Scheduling, st.MemoryLocked)
	}
	out := c.Agent(0).Output()
	for line, times := range map[string]int{`msg="scheduling rr 95"`: 1, "memory is not locked": 0, "is on a disk: every vote waits for it (use a directory under /run, or mount a tmpfs there)": 1} {
		if n := strings.Count(out, line); n != times {
			t.Errorf("the agent says %d times, want %d: %s\n%s", n, times, line, out)
		}
	}
}

// slowRelease may take longer than the unit's TimeoutStopSec=.
func slowRelease(int) string {
	return "[[vip.action]]\non = \"release\"\nexec = [\"/bin/true\"]\ntimeout = \"40s\""
}

func frozen(t *testing.T, p *lab.Process, manager *notifySocket) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	manager.drain()
	if got, ok := manager.next(time.Second); ok {
		t.Errorf("a frozen agent says %q", got)
	}
	if err := p.Cont(); err != nil {
		t.Fatal(err)
	}
	manager.expect(t, "WATCHDOG=1")
}

type notifySocket struct {
	path  string
	conn  *net.UnixConn
	words chan string
}

func listenNotify(t *testing.T) *notifySocket {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	s := &notifySocket{path: filepath.Join(dir, "socket"), words: make(chan string, 1024)}
	s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = s.conn.Close()
		_ = os.RemoveAll(dir)
	})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := s.conn.Read(buf)
			if err != nil {
				return
			}
			for _, w := range strings.Split(string(buf[:n]), "\n") {
				select {
				case s.words <- w:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return s
}

func (s *notifySocket) next(within time.Duration) (string, bool) {
	select {
	case w := <-s.words:
		return w, true
	case <-time.After(within):
		return "", false
	}
}

// drain drops what was sent before a freeze took hold: it waits for the first pause
// longer than half a watchdog interval.
func (s *notifySocket) drain() {
	for {
		if _, ok := s.next(250 * time.Millisecond); !ok {
			return
		}
	}
}

func (s *notifySocket) expect(t *testing.T, word string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if w, ok := s.next(time.Until(deadline)); ok && w == word {
			return
		}
	}
	t.Fatalf("never heard %s", word)
}
