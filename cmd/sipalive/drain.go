package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newDrainCommand() *cobra.Command {
	return newOrderCommand(control.Drain, "[NODE]", "Move everything off a node and keep it off",
		`Move everything off a node, this one unless another is named, and place
nothing there until undrain, unless there is no one else. It survives a restart
of the agent.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Drain, Node: optional(args)}
		})
}
