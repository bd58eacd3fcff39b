package unit

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
	dir, err := os.MkdirTemp("", "sipalive-unit-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "sipalive")
	if err := build(binary, "v1.0.0"); err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		return 1
	}
	return m.Run()
}

// build makes a binary of a version.
func build(path, version string) error {
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", path, "sipalive/cmd/sipalive")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build sipalive: %w\n%s", err, out)
	}
	return nil
}
