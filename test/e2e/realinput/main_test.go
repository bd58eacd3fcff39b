package realinput

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"sipalive/test/lab"
	"sipalive/test/shipped"
)

// binary is the path of sipalive as it is shipped, built once per run.
var binary string

// roleEnv makes this test binary run as one of the servers that the tests start.
const roleEnv = "REALINPUT_ROLE"

var roles = map[string]func(args []string) error{
	"rogue":      serveRogue,
	"freeswitch": serveEventSocket,
	"slow":       serveSlow,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := toolsThere(); err != nil {
		fmt.Fprintln(os.Stderr, "realinput:", err)
		os.Exit(1)
	}
	os.Exit(shipped.Main(m, "realinput", &binary))
}

// role returns a Spec that runs this test binary as one of its servers.
func role(name string, args ...string) lab.Spec {
	return lab.Spec{Name: name, Path: os.Args[0], Args: args, Env: []string{roleEnv + "=" + name}}
}

func toolsThere() error {
	for _, tool := range []string{"kamailio", "sipp", "memcached"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (apt-get install kamailio sip-tester memcached)", err)
		}
	}
	return nil
}
