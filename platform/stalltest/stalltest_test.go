package stalltest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func at(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestEachMomentCountsOnce(t *testing.T) {
	a, b := core{looked: at(0)}, core{looked: at(0)}
	for _, ms := range []int{10, 25, 45, 400, 410} {
		a.look(at(ms)) // stood still from 65 to 400
	}
	for _, ms := range []int{10, 200, 210, 500} {
		b.look(at(ms)) // from 30 to 200, and from 230 to 500
	}
	all := append(a.stood, b.stood...)
	for _, c := range []struct {
		from, to int
		want     time.Duration
	}{
		{0, 1000, 470}, {100, 1000, 400}, {450, 1000, 50}, {600, 1000, 0},
		{0, 20, 0}, {0, 100, 70}, {100, 300, 200}, {450, 460, 10},
	} {
		if got := union(all, at(c.from), at(c.to)); len(all) != 3 || got != c.want*time.Millisecond {
			t.Errorf("%v make %v from %d to %d ms, want %d ms", all, got, c.from, c.to, c.want)
		}
	}
}

const asChild = "STALLTEST_CHILD"

// TestWatchSeesThatItStood: a process that was stopped knows afterwards for how long.
func TestWatchSeesThatItStood(t *testing.T) {
	if os.Getenv(asChild) != "" {
		stood := Watch(t)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Printf("stood %d\n", stood())
		}
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), asChild+"=1")
	in, err := child.StdinPipe()
	must(t, err)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	lines := bufio.NewScanner(out)
	stood := func() time.Duration {
		_, err := fmt.Fprintln(in)
		must(t, err)
		for lines.Scan() {
			if ns, is := strings.CutPrefix(lines.Text(), "stood "); is {
				d, err := time.ParseDuration(ns + "ns")
				must(t, err)
				return d
			}
		}
		t.Fatalf("the child says nothing: %v", lines.Err())
		return 0
	}
	asked := time.Now()
	before := stood()
	must(t, child.Process.Signal(syscall.SIGSTOP))
	for !strings.Contains(stat(t, child.Process.Pid), ") T ") {
		time.Sleep(time.Millisecond)
	}
	stopped := time.Now()
	time.Sleep(300 * time.Millisecond)
	least := time.Since(stopped) - period - usual
	must(t, child.Process.Signal(syscall.SIGCONT))
	got := stood() - before
	if most := time.Since(asked); got < least || got > most {
		t.Errorf("stood still for %v, want %v to %v", got, least, most)
	}
	must(t, in.Close())
	must(t, child.Wait())
}

func stat(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
