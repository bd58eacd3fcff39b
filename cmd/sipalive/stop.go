package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newStopCommand() *cobra.Command {
	return newOrderCommand(control.Stop, "", "Hand everything over and end the agent",
		`Hand every VIP and role of this node over and end its agent. To restart or
upgrade an agent, restart it: that moves nothing.`,
		func([]string) control.Command { return control.Command{Kind: control.Stop} })
}
