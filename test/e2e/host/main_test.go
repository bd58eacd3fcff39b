package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is sipalive as it is shipped, built once per run.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e/host: network namespaces need root (run the tests with sudo)")
		return 1
	}
	dir, err := os.MkdirTemp("", "sipalive-host-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e/host:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "sipalive")
	build := exec.Command("go", "build", "-o", binary, "sipalive/cmd/sipalive")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e/host: build sipalive: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
