package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sipalive/control"
)

func newRoleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "role (--holds VIP-OR-ROLE | --spare)",
		Short: "Answer by exit code what this node is: for cron and scripts",
		Long: `Answer by exit code, 0 for yes and 1 for no, whether this node holds a VIP or
role, or is spare: fit and holding no VIP. Only the agent on this machine is
asked. Nothing is printed, but errors.`,
		Example:               `  sipalive role --holds cdr && import-cdrs`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	runDir := addRunDir(cmd)
	name := cmd.Flags().String("holds", "", "does this node hold this VIP or role?")
	spare := cmd.Flags().Bool("spare", false, "is this node fit and holding no VIP?")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (*name != "") == *spare {
			return misuse(cmd, "needs either --holds VIP-OR-ROLE or --spare")
		}
		st, err := control.NewClient(*runDir).Status(cmd.Context())
		if err != nil {
			return err
		}
		yes := st.Spare()
		if !*spare {
			known := false
			if yes, known = st.Holds(*name); !known {
				return fmt.Errorf("role --holds %s: no VIP or role of that name on %s (sipalive status lists them)", *name, st.Node)
			}
		}
		if !yes {
			return errNo
		}
		return nil
	}
	return cmd
}
