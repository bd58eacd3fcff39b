package main

import (
	"encoding/json"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sipalive/control"
)

// defaultEvents fits a terminal.
const defaultEvents = 20

func newEventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, with timelines",
		Long: `Show what happened, oldest first. Below a takeover stands its timeline in
milliseconds since the need for it was noticed. With --follow a takeover is shown
when it is complete; one that takes long is shown after 3 s, and once more when
it is complete.`,
		Args: arguments(""),
	}
	runDir := addRunDir(cmd)
	asJSON := cmd.Flags().Bool("json", false, "one JSON object per line")
	n := cmd.Flags().IntP("number", "n", defaultEvents, "how many of the newest events")
	follow := cmd.Flags().Bool("follow", false, "go on with what comes, until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *n < 0 {
			return misuse(cmd, "-n %d: not a number of events", *n)
		}
		show := printEvent(cmd.OutOrStdout(), *asJSON)
		client := control.NewClient(*runDir)
		if *follow {
			return client.Follow(cmd.Context(), *n, show)
		}
		events, err := client.Events(cmd.Context(), *n)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := show(e); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func printEvent(w io.Writer, asJSON bool) func(control.Event) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return func(event control.Event) error { return e.Encode(event) }
	}
	return func(event control.Event) error { return control.WriteEvent(w, event, time.Local) }
}
