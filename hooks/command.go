package hooks

import (
	"context"
	"time"
)

// Command runs a line of shell as a user of this node, as an exec action is run: in a
// process group that ends with the timeout, by the hooks service where there is one.
// It returns what the line printed, capped, and why it failed.
func (r *Runner) Command(ctx context.Context, user, line string, env []string, timeout time.Duration) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := Action{On: Acquire, Exec: []string{"/bin/sh", "-c", line}, User: user, Timeout: timeout}
	res := r.exec(ctx, a, append([]string{"PATH=" + searchPath}, env...))
	return oneLine(res.output), res.err
}
