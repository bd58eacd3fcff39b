package hooks

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"
)

// The exit codes of monitoring plugins (Monitoring Plugins Development Guidelines,
// "Plugin Return Codes").
const (
	CheckOK      = 0
	CheckWarning = 1
	CheckUnfit   = 2
	CheckUnknown = 3
)

// RunCheck runs a program that answers with its exit code. It runs like an action:
// without the agent's capabilities, in a process group that is killed at the timeout. Any
// exit code but these four, and a program that does not start or end in time, is
// CheckUnknown. text is one line: the first line that the program printed, or why there
// is no answer.
func RunCheck(ctx context.Context, node string, argv []string, timeout time.Duration) (code int, text string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p := program{Argv: argv, Env: []string{"PATH=" + searchPath, "SIPALIVE_NODE=" + oneLine(node)}}
	res := runExec(ctx, timeout, p, account{uid: uint32(os.Geteuid())}, killGroup)
	first, _, _ := strings.Cut(strings.TrimSpace(res.output), "\n")
	var exit *exec.ExitError
	switch {
	case res.err == nil:
		return CheckOK, oneLine(first)
	case errors.As(res.err, &exit) && exit.ExitCode() >= 0 && exit.ExitCode() <= CheckUnknown:
		return exit.ExitCode(), oneLine(first)
	}
	return CheckUnknown, oneLine(res.err.Error())
}
