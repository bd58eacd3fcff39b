package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/control"
)

func newReloadCommand() *cobra.Command {
	return newOrderCommand(control.Reload, "", "Read the configuration file anew",
		`Have the agent of this node read its configuration file again and take it, as
SIGHUP does. A file that is not good, or that changes what only a restart can
(cluster, port, fence, [control], this node's own name, address or holder), is
refused as a whole: nothing changes. Nothing is moved by it, and a VIP that is
no longer in the file is let go. Give every node the new file, one after the
other; status shows by name whose file differs.`,
		func([]string) control.Command { return control.Command{Kind: control.Reload} })
}

// reloadOnHangup makes the agent reload at each SIGHUP until ctx ends. The log tells the
// result.
func reloadOnHangup(ctx context.Context, a *agent.Agent, hangup <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		if _, err := a.Reload(ctx); err != nil {
			log.Error("reload", "node", a.Self.Name, "err", err)
		}
	}
}
