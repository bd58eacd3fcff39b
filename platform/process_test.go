package platform

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// askEnv makes the test binary answer a question about itself and exit.
const askEnv = "SIPALIVE_TEST_ASK"

// ask runs the test binary again with one question, through a command.
func ask(t *testing.T, question string, with ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(with, exe, "-test.run", "^TestAnswer$", "-test.v")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), askEnv+"="+question)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	m := regexp.MustCompile(`(?m)answer: (.*)$`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no answer in\n%s", out)
	}
	return string(m[1])
}

// TestAnswer answers in the process that ask started. Otherwise it asks.
func TestAnswer(t *testing.T) {
	answer := ""
	switch os.Getenv(askEnv) {
	case "scheduling":
		policy, err := Scheduling()
		answer = policy
		if err != nil {
			t.Fatal(err)
		}
	case "memory":
		err := LockMemory()
		status, failed := os.ReadFile("/proc/self/status")
		if failed != nil {
			t.Fatal(failed)
		}
		answer = regexp.MustCompile(`VmLck:\s+\d+ kB`).FindString(string(status))
		if err != nil {
			answer = err.Error() + "; " + answer
		}
	default:
		if got := ask(t, "scheduling", "chrt", "-o", "0"); got != "other" {
			t.Errorf("a plain process says %q", got)
		}
	}
	t.Log("answer: " + answer)
}

func TestScheduling(t *testing.T) {
	for want, with := range map[string][]string{
		"rr 7": {"chrt", "-r", "7"}, "fifo 3": {"chrt", "-f", "3"}, "other": {"chrt", "-o", "0"}, "idle": {"chrt", "-i", "0"}, "batch": {"chrt", "-b", "0"},
	} {
		if got := ask(t, "scheduling", with...); got != want {
			t.Errorf("%v says %q, want %q", with, got, want)
		}
	}
	// chrt -R is CPUSchedulingResetOnFork=yes: all threads but the first lose the policy.
	if got := ask(t, "scheduling", "chrt", "-R", "-r", "7"); got != "other" {
		t.Errorf("with reset on fork it says %q, want that of the weakest thread", got)
	}
}

// TestSchedulingOfOneThread: one realtime thread among others does not make a realtime
// process.
func TestSchedulingOfOneThread(t *testing.T) {
	before, err := Scheduling()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 5}, 0)
		if err == nil {
			var now string
			if now, err = Scheduling(); now != before {
				t.Errorf("with one realtime thread: %q, was %q", now, before)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLockMemory(t *testing.T) {
	if got := ask(t, "memory", "env"); got == "VmLck: 0 kB" || strings.Contains(got, ";") || !strings.Contains(got, "VmLck") {
		t.Errorf("with CAP_IPC_LOCK: %q", got)
	}
	got := strings.Join(strings.Fields(ask(t, "memory", "prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set", "-ipc_lock")), " ")
	want := "lock memory: the limit is 64 kB (needs LimitMEMLOCK=infinity in the unit, or CAP_IPC_LOCK); VmLck: 0 kB"
	if got != want {
		t.Errorf("without:\ngot  %s\nwant %s", got, want)
	}
}

func TestOnTmpfs(t *testing.T) {
	for dir, want := range map[string]bool{"/dev/shm": true, "/proc": false} {
		if got, err := OnTmpfs(dir); err != nil || got != want {
			t.Errorf("%s: %t, %v, want %t", dir, got, err, want)
		}
	}
	if _, err := OnTmpfs("/nonexistent"); err == nil || !strings.HasPrefix(err.Error(), "look at the file system of /nonexistent: ") {
		t.Errorf("a missing directory: %v", err)
	}
}
