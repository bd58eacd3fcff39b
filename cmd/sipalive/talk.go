package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"sipalive/control"
)

// defaultRunDir is where the agent keeps what must not outlive the boot, and its socket.
const defaultRunDir = "/run/sipalive"

// addRunDir adds the flag that every command has that talks to the agent.
func addRunDir(cmd *cobra.Command) *string {
	return cmd.Flags().String("run-dir", defaultRunDir, "runtime directory of the agent")
}

// newOrderCommand returns a command that makes the agent do something and prints the
// outcome in words.
func newOrderCommand(kind control.Kind, form, short, long string, order func(args []string) control.Command) *cobra.Command {
	use := string(kind)
	if form != "" {
		use += " " + form
	}
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: arguments(form), DisableFlagsInUseLine: true}
	runDir := addRunDir(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := order(args)
		text, err := control.NewClient(*runDir).Do(cmd.Context(), c)
		if err != nil {
			return err
		}
		if text == "" {
			text = c.String() + ": done"
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

// optional returns the argument of a command that takes one or none.
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
