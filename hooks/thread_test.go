package hooks

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary run as an agent with rights that its actions must not
// get. It then prints the rights of a plain child, then those of an action.
const helperEnv = "SIPALIVE_TEST_HELPER"

const privilegesScript = `grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | tr '\n\t' '  '
cut -d ' ' -f 19,41 /proc/self/stat`

func helperMain() int {
	plain, err := exec.Command("/bin/sh", "-c", privilegesScript).CombinedOutput()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("plain: %s", plain)
	r := NewRunner(Options{Now: testNow})
	root := sh(privilegesScript)
	root.User = "root"
	out, done := make(chan Outcome, 2), make(chan struct{})
	r.Start("vip1", Acquire, 1, Event{}, []Action{sh(privilegesScript), root},
		func(o Outcome) { out <- o }, func(End) { close(done) })
	<-done
	o := <-out
	fmt.Printf("action: %s%s\n", o.Output, o.Err)
	o = <-out
	fmt.Printf("root: %s%s\n", o.Output, o.Err)
	self, err := os.ReadFile("/proc/self/stat") // of the main thread
	if err != nil || r.Close(context.Background()) != nil {
		return 1
	}
	fmt.Printf("agent policy: %s\n", strings.Fields(string(self))[40])
	return 0
}

// runHelper runs the helper as uid with ambient capabilities, from a thread that prepare
// has changed.
func runHelper(t *testing.T, uid uint32, ambient []uintptr, prepare func() error) map[string]string {
	t.Helper()
	cmd := exec.Command(publicCopy(t))
	cmd.Env = []string{helperEnv + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uid, Gid: uid},
		AmbientCaps: ambient,
	}
	var text []byte
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, because prepare changed this thread
		err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
		if err == nil {
			err = prepare()
		}
		if err == nil {
			text, err = cmd.CombinedOutput()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatalf("helper: %v\n%s", err, text)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[name] = value
	}
	return got
}

// publicCopy copies the test binary to where any user may run it.
func publicCopy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sipalive-hooks-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(dir, "agent")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	capsNet  = "0000000000003000" // CAP_NET_ADMIN, CAP_NET_RAW
	capsNone = "0000000000000000"
)

func capLine(caps string) string {
	return fmt.Sprintf("CapInh: %s CapPrm: %s CapEff: %s CapAmb: %s 0 0", caps, caps, caps, caps)
}

func TestActionsGetNoCapabilities(t *testing.T) {
	got := runHelper(t, 65534, []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, func() error { return nil })
	if got["plain"] != capLine(capsNet) {
		t.Fatalf("the agent of this test has no capabilities to pass on: %v", got)
	}
	if got["action"] != capLine(capsNone) {
		t.Errorf("an action has %s", got["action"])
	}
}

// TestActionsGetNoPriority: the fields are nice and policy (2 is SCHED_RR).
func TestActionsGetNoPriority(t *testing.T) {
	tests := []struct {
		name, plain, action, agent string
		prepare                    func() error
	}{
		{"SCHED_RR", "0 2", "0 0", "2", func() error {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 5}, 0)
		}},
		{"negative nice", "-5 0", "0 0", "0", func() error {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: -5}, 0)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := runHelper(t, 65534, nil, tt.prepare)
			caps := strings.TrimSuffix(capLine(capsNone), "0 0")
			want := map[string]string{
				"plain":        caps + tt.plain,
				"action":       caps + tt.action,
				"agent policy": tt.agent,
			}
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%s: got %q, want %q", name, got[name], want[name])
				}
			}
		})
	}
}

// TestRootIsNoCapability: an agent that runs as root gives its actions no more than any
// other agent, unless their user is root by name.
func TestRootIsNoCapability(t *testing.T) {
	got := runHelper(t, 0, nil, func() error { return nil })
	if got["action"] != capLine(capsNone) || strings.Contains(got["plain"], "CapEff: "+capsNone) {
		t.Errorf("an action of root has %q, a plain child %q", got["action"], got["plain"])
	}
	if got["root"] != got["plain"] {
		t.Errorf("an action with user = \"root\" has %q, a plain child %q", got["root"], got["plain"])
	}
}
