package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newPlanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "plan [--without NODE]...",
		Short:                 "Show who would hold what, and why",
		Long:                  `Show who would hold what, and why, if the named nodes were gone. Nothing moves.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	runDir := addRunDir(cmd)
	without := cmd.Flags().StringArray("without", nil, "a node to do without; may be given again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := control.NewClient(*runDir).Plan(cmd.Context(), *without)
		if err != nil {
			return err
		}
		return control.WritePlan(cmd.OutOrStdout(), p)
	}
	return cmd
}
