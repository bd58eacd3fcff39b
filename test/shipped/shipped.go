// Package shipped builds sipalive as it is shipped, for tests that run it as a process.
package shipped

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BuildTo builds the binary at path; flags are additional flags of go build.
func BuildTo(path string, flags ...string) error {
	build := exec.Command("go", append(append([]string{"build"}, flags...), "-o", path, "sipalive/cmd/sipalive")...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build sipalive: %w\n%s", err, out)
	}
	return nil
}

// Build builds the binary in a new directory, which the caller removes. The tests that
// run it need root, so Build first checks for root.
func Build(flags ...string) (path string, err error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("network namespaces need root (run the tests with sudo)")
	}
	dir, err := os.MkdirTemp("", "sipalive-test-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "sipalive")
	if err := BuildTo(path, flags...); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return path, nil
}

// Main is for a TestMain: it builds the binary once, stores its path, runs the tests and
// returns their exit code.
func Main(m interface{ Run() int }, room string, path *string, flags ...string) int {
	var err error
	if *path, err = Build(flags...); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", room, err)
		return 1
	}
	defer os.RemoveAll(filepath.Dir(*path))
	return m.Run()
}
