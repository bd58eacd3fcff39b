package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sipalive/control"
)

func newKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Change the key of the heartbeats",
		Args:  cobra.ArbitraryArgs, // RunE says it in one line
		RunE: func(cmd *cobra.Command, args []string) error {
			return misuse(cmd, "needs a command: rotate")
		},
	}
	cmd.AddCommand(newRotateCommand())
	return cmd
}

func newRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate [--without NODE]...",
		Short: "Give every node a new key while all goes on",
		Long: `Draw a new key and bring it to every node, whose agents write it into their key
files: every node accepts it beside the old one, then every node seals with it,
then the old one is dropped, each only once all have confirmed the step before.
No packet is refused meanwhile and nothing moves. One line per node and step.

Every node has to answer, and is named if it does not. A node that is down may be
left out by --without; it has to be given the key file of another one by hand
before its agent starts. Interrupted, or stopped by a node that fell silent, the
cluster goes on as it is; run it again, on any node: that run's key takes the place
of all others.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	runDir := addRunDir(cmd)
	without := cmd.Flags().StringArray("without", nil, "leave out a node that is down; may be given again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		text, err := control.NewClient(*runDir).RotateKey(ctx, *without, func(k control.KeyStep) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", k.Node, k.Step, k.Key)
		})
		if errors.Is(ctx.Err(), context.Canceled) && err != nil {
			return errors.New("key rotate: interrupted: the cluster goes on as it is (sipalive key rotate, on any node, finishes what was begun)")
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}
