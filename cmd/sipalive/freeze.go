package main

import (
	"time"

	"github.com/spf13/cobra"

	"sipalive/control"
)

// defaultFreeze is enough time to restart a FreeSWITCH and look at it.
const defaultFreeze = 30 * time.Minute

func newFreezeCommand() *cobra.Command {
	var long time.Duration
	cmd := newOrderCommand(control.Freeze, "[NODE]", "Work on a node's PBX without losing its VIPs",
		`Have no SIP verdict take a VIP from a node, this one unless another is named:
its PBX may be restarted. Leases go on, so a node that dies is taken over as
ever. It ends by itself or with thaw; a restart of the agent does not end it.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Freeze, Node: optional(args), For: control.Millis(long)}
		})
	cmd.Flags().DurationVar(&long, "for", defaultFreeze, "how long at most (1s to 24h)")
	cmd.Use = "freeze [NODE] [--for 30m]"
	return cmd
}

func newThawCommand() *cobra.Command {
	return newOrderCommand(control.Thaw, "[NODE]", "Watch a frozen node's PBX again",
		`Watch the PBX of a node again, this one unless another is named.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Thaw, Node: optional(args)}
		})
}
