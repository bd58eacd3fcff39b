package main

import (
	"context"

	"github.com/spf13/cobra"

	"sipalive/control"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes and VIPs as this node sees them",
		Long: `Show VIPs, roles and nodes as this node sees them, what is unusual first. With
--watch the terminal shows it live, with the last events, until interrupted.
Colours are for terminals only; NO_COLOR=1 turns them off there too.`,
		Args: arguments(""),
	}
	runDir := addRunDir(cmd)
	asJSON := cmd.Flags().Bool("json", false, "as one JSON document on one line")
	watch := cmd.Flags().Bool("watch", false, "go on showing it; with --json a line about once a second and at every event")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, out := control.NewClient(*runDir), cmd.OutOrStdout()
		document := func(ctx context.Context) error {
			doc, err := client.StatusJSON(ctx)
			if err != nil {
				return err
			}
			_, err = out.Write(doc)
			return err
		}
		screen := terminal(out)
		switch {
		case *watch && *asJSON:
			return watchStatus(cmd.Context(), client, document)
		case *watch && screen == nil:
			return misuse(cmd, "--watch needs a terminal (for scripts: --watch --json, or sipalive events --follow)")
		case *watch:
			return watchScreen(cmd.Context(), client, screen)
		case *asJSON:
			return document(cmd.Context())
		}
		st, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		return control.WriteStatus(out, st, lookOn(out))
	}
	return cmd
}
