package main

import (
	"time"

	"github.com/spf13/cobra"

	"sipalive/control"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes and VIPs as this node sees them",
		Long:  `Show nodes, VIPs and roles as this node sees them, what is unusual first.`,
		Args:  arguments(""),
	}
	runDir := addRunDir(cmd)
	asJSON := cmd.Flags().Bool("json", false, "as one JSON document on one line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client := control.NewClient(*runDir)
		if *asJSON {
			doc, err := client.StatusJSON(cmd.Context())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(doc)
			return err
		}
		st, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		return control.WriteStatus(cmd.OutOrStdout(), st, time.Local)
	}
	return cmd
}
