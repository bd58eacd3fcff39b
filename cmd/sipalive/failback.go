package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newFailbackCommand() *cobra.Command {
	return newOrderCommand(control.Failback, "[VIP]", "Move VIPs back to the nodes they prefer",
		`Move one VIP or role, or all of them, back to the first node of its prefer
list that is fit.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Failback, VIP: optional(args)}
		})
}
