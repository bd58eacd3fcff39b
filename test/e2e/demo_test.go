package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sipalive/test/cluster"
	"sipalive/test/lab"
)

// demoCopy copies the binary to a name of its own, so that its processes can be told from
// all others.
func demoCopy(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sipalive-demo")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// nothingLeft checks that the demo has left no namespace, no process of its binary and no
// file of its cluster.
func nothingLeft(t *testing.T, binary string, pid int, files []string) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/run/netns/sipa-%d-*", pid))
	if err != nil || len(names) > 0 {
		t.Errorf("namespaces left: %v %v", names, err)
	}
	if left := processesOf(binary); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	if left := clusterDirs(t); len(left) > len(files) {
		t.Errorf("directories left: %v, before %v", left, files)
	}
}

// processesOf lists the processes that run this binary.
func processesOf(binary string) (pids []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, binary) {
			pids = append(pids, filepath.Base(filepath.Dir(link)))
		}
	}
	return pids
}

func clusterDirs(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"/dev/shm", os.TempDir()} {
		names, err := filepath.Glob(filepath.Join(dir, "sipalive-lab-*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	return all
}

// TestDemo: the demo runs to its end, shows every step and cleans up.
func TestDemo(t *testing.T) {
	path, before := demoCopy(t), clusterDirs(t)
	cmd := exec.Command(path, "demo")
	c := execute(t, cmd)
	if c.code != 0 || c.err != "" {
		t.Fatalf("demo: exit %d: %s\n%s", c.code, c.err, c.out)
	}
	for _, want := range []string{"1. Planned move", "2. PBX process killed", "3. Host gone silent", "4. The silent host comes back",
		"5. Home again", "phone, vip1: ", "phone, vip2: ", "sip answered", "never two owners for one address"} {
		if !strings.Contains(c.out, want) {
			t.Errorf("demo does not show %q:\n%s", want, c.out)
		}
	}
	nothingLeft(t, path, cmd.Process.Pid, before)
}

// TestDemoInterrupted: Ctrl-C in the middle leaves nothing behind.
func TestDemoInterrupted(t *testing.T) {
	path, before := demoCopy(t), clusterDirs(t)
	for _, step := range []string{"Three PBX nodes", "1. Planned move", "3. Host gone silent"} {
		t.Run(step, func(t *testing.T) {
			cmd := exec.Command(path, "demo")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
			defer late.Stop()
			seen := false
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if !seen && strings.Contains(lines.Text(), step) {
					seen = true
					if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cmd.Wait(); err != nil || !seen {
				t.Errorf("demo interrupted at %q (seen: %v): %v", step, seen, err)
			}
			ctx, cancel := cluster.Deadline(time.Second)
			defer cancel()
			_ = lab.WaitFor(ctx, "its processes to end", func() error { // nothingLeft reports it
				if left := processesOf(path); len(left) > 0 {
					return fmt.Errorf("%v", left)
				}
				return nil
			})
			nothingLeft(t, path, cmd.Process.Pid, before)
		})
	}
}
