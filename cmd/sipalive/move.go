package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newMoveCommand() *cobra.Command {
	return newOrderCommand(control.Move, "VIP NODE", "Move a VIP or role to a node",
		`Move a VIP or role to a node, with the old holder's help: about one round
trip of silence. It waits until the node holds it, or says why it does not.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Move, VIP: args[0], Node: args[1]}
		})
}
