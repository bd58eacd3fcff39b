package realinput

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sipalive/test/lab"
)

// binary is sipalive as it is shipped, built once per run.
var binary string

// roleEnv makes this test binary one of the servers that tests start.
const roleEnv = "REALINPUT_ROLE"

var roles = map[string]func(args []string) error{
	"rogue":      serveRogue,
	"freeswitch": serveEventSocket,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

// role is this test binary as one of its servers.
func role(name string, args ...string) lab.Spec {
	return lab.Spec{Name: name, Path: os.Args[0], Args: args, Env: []string{roleEnv + "=" + name}}
}

func run(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "realinput:", err)
		return 1
	}
	defer os.RemoveAll(filepath.Dir(binary))
	return m.Run()
}

func prepare() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("network namespaces need root (run the tests with sudo)")
	}
	for _, tool := range []string{"kamailio", "sipp", "memcached"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (apt-get install kamailio sip-tester memcached)", err)
		}
	}
	dir, err := os.MkdirTemp("", "sipalive-realinput-")
	if err != nil {
		return err
	}
	binary = filepath.Join(dir, "sipalive")
	build := exec.Command("go", "build", "-o", binary, "sipalive/cmd/sipalive")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return fmt.Errorf("build sipalive: %w\n%s", err, out)
	}
	return nil
}
