package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newUndrainCommand() *cobra.Command {
	return newOrderCommand(control.Undrain, "[NODE]", "Let a drained node hold VIPs again",
		`Let a drained node, this one unless another is named, hold VIPs again.
Nothing moves back by that alone: see failback.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Undrain, Node: optional(args)}
		})
}
