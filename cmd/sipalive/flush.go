package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"sipalive/control"
)

func newFlushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flush",
		Short: "Run every node's flush actions",
		Long: `Have every node run its flush actions, the [[action]] tables with on = "flush",
and show what became of each. It exits with 1 if one failed or a node is not heard.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	runDir := addRunDir(cmd)
	asJSON := cmd.Flags().Bool("json", false, "a list of results as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := control.NewClient(*runDir).Flush(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(results)
		} else {
			err = control.WriteFlush(cmd.OutOrStdout(), results)
		}
		if err == nil && !control.Flushed(results) {
			err = errNo
		}
		return err
	}
	return cmd
}
