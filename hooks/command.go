package hooks

import (
	"context"
	"time"
)

// Command runs a shell line as a user of this node, in the way of an exec action: in a
// process group that is killed at the timeout, through the hooks service if there is one.
// It returns what the line printed, as one short line, and why it failed.
func (r *Runner) Command(ctx context.Context, user, line string, env []string, timeout time.Duration) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := Action{On: Acquire, Exec: []string{"/bin/sh", "-c", line}, User: user, Timeout: timeout}
	res := r.exec(ctx, a, append([]string{"PATH=" + searchPath}, env...))
	return oneLine(res.output), res.err
}
