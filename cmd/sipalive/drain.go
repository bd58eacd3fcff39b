package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sipalive/control"
)

func newDrainCommand() *cobra.Command {
	cmd := newOrderCommand(control.Drain, "[NODE]", "Move everything off a node and keep it off",
		`Move everything off a node, this one unless another is named, and place
nothing there until undrain, unless there is no one else. It survives a restart
of the agent.

With --wait-calls this node's FreeSWITCH first lets no new calls in (fsctl pause)
until at most --max-calls are left, or for that long. Interrupted before the move,
everything is as it was.`,
		func(args []string) control.Command {
			return control.Command{Kind: control.Drain, Node: optional(args)}
		})
	wait := cmd.Flags().Duration("wait-calls", 0, "wait for calls to end, at most so long, e.g. 30m")
	most := cmd.Flags().Int("max-calls", 0, "so many calls may be left")
	atOnce := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case !cmd.Flags().Changed("wait-calls") && cmd.Flags().Changed("max-calls"):
			return misuse(cmd, "--max-calls needs --wait-calls")
		case !cmd.Flags().Changed("wait-calls"):
			return atOnce(cmd, args)
		case *wait <= 0 || *most < 0:
			return misuse(cmd, "--wait-calls has to be a time and --max-calls a number, such as --wait-calls 30m --max-calls 2")
		}
		runDir, _ := cmd.Flags().GetString("run-dir")
		return drainQuietly(cmd, control.NewClient(runDir), args, control.WaitCalls{Wait: *wait, MaxCalls: *most})
	}
	return cmd
}

// drainQuietly shows each change of the number of calls.
func drainQuietly(cmd *cobra.Command, client *control.Client, args []string, w control.WaitCalls) error {
	if len(args) > 0 {
		st, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		if args[0] != st.Node {
			return fmt.Errorf("drain %s --wait-calls: this is %s, whose FreeSWITCH is the one asked (run it on %[1]s)", args[0], st.Node)
		}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // wait for the agent's last word, but not after a second signal
	text, err := client.DrainQuietly(ctx, w, showCalls(cmd.OutOrStdout()))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

func showCalls(w io.Writer) func(control.CallsLeft) {
	shown := ""
	return func(p control.CallsLeft) {
		now := fmt.Sprintf("%d calls", p.Calls)
		if p.Text != "" {
			now = p.Text
		}
		if now == shown {
			return
		}
		shown = now
		fmt.Fprintf(w, "%s, at most %s more\n", now, time.Duration(p.Left).Round(time.Second))
	}
}
