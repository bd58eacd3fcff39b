package hooks

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// favouredEnv makes the test binary an agent with the rights that the unit gives: it
// takes what it can, then runs the named tests.
const favouredEnv = "SIPALIVE_TEST_FAVOURED"

// limitsScript prints the locked-memory limit, the OOM score and the realtime limits of a
// process and of the shell's own child, to show that nothing was there even for a moment.
const limitsScript = `sh -c 'cat /proc/self/oom_score_adj; ulimit -l'
grep -E "locked memory|realtime" /proc/self/limits | tr -s ' ' | cut -d ' ' -f 2-5
grep VmLck /proc/self/status | tr -s '\t ' ' '
cut -d ' ' -f 41 /proc/self/stat`

// TestActionsGetNoFavours: this test's agent has locked memory and the unit's limits, as
// far as root may set them here.
func TestActionsGetNoFavours(t *testing.T) {
	if os.Getenv(favouredEnv) == "" {
		rerunFavoured(t, "TestActionsGetNoFavours")
		return
	}
	if !favoured() {
		t.Fatal("this agent has nothing that an action must not keep")
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		t.Fatal(err)
	}
	r := newTestRunner(t, Options{})
	o := runOne(t, r, sh(limitsScript))
	want := `0
8192
locked memory 8388608 8388608
realtime priority 0 0
realtime timeout unlimited unlimited
VmLck: 0 kB
0
`
	if o.Output != want || !o.OK {
		t.Errorf("an action has\n%s%s\nwant\n%s", o.Output, o.Err, want)
	}
	if kind := os.Getenv(favouredEnv); spared(oomScorePath) != (kind == "score") {
		t.Errorf("the agent's own score is no longer what the test gave it (%s)", kind)
	}
}

// TestShedOOMScore: only a protecting score is dropped; one that an operator raised
// stays. (The kernel's own file takes a negative score only with CAP_SYS_RESOURCE, which
// not every root has.)
func TestShedOOMScore(t *testing.T) {
	for was, want := range map[string]string{"-900\n": "0", "-1\n": "0", "0\n": "0\n", "500\n": "500\n"} {
		path := filepath.Join(t.TempDir(), "oom_score_adj")
		if err := os.WriteFile(path, []byte(was), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := shedOOMScore(path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q became %q, %v, want %q", was, got, err, want)
		}
	}
}

// TestBecomeErrors: the error for a program that cannot be run is the same as without the
// detour.
func TestBecomeErrors(t *testing.T) {
	if os.Getenv(favouredEnv) == "" {
		rerunFavoured(t, "TestExecErrors|TestExecEnvironment|TestExecSurroundings|TestExecTimeoutKillsTheWholeGroup|TestBecomeErrors")
		return
	}
	missing := filepath.Join(t.TempDir(), "missing")
	o := runOne(t, newTestRunner(t, Options{}), Action{Exec: []string{missing}})
	if want := "exec " + missing + ": no such file or directory (is it installed on this node?)"; o.Err != want {
		t.Errorf("got %s, want %s", o.Err, want)
	}
}

// rerunFavoured runs tests of this binary the way systemd starts the agent: with a soft
// realtime limit and, if root may set them (that needs CAP_SYS_RESOURCE), an OOM score
// and unlimited locked memory.
func rerunFavoured(t *testing.T, tests string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kind, with := "limits", []string{"prlimit", "--rttime=1000000:unlimited"}
	if exec.Command("choom", "-n", "-1", "--", "true").Run() == nil {
		kind, with = "score", []string{"choom", "-n", "-900", "--", "prlimit", "--rttime=1000000:unlimited", "--memlock=unlimited"}
	}
	with = append(with, exe, "-test.run", "^("+tests+")$", "-test.v")
	cmd := exec.Command(with[0], with[1:]...)
	cmd.Env = append(os.Environ(), favouredEnv+"="+kind)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("as a favoured agent (%s): %v\n%s", kind, err, out)
	}
}
