// Command sipalive keeps the floating IPs of a PBX cluster alive. It contains the agent,
// and the commands that people and scripts use (docs/design.md §8).
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sipalive/hooks"
)

func main() {
	hooks.BecomeAction()
	// Each command handles signals itself: the agent hands over, the demo cleans up, and
	// a command that asks an agent just ends.
	cmd, err := newRootCommand().ExecuteContextC(context.Background())
	err = asMisuse(cmd, err)
	if line := errorLine(err); line != "" {
		fmt.Fprintln(os.Stderr, line)
	}
	os.Exit(exitCode(err))
}

func newRootCommand() *cobra.Command {
	cobra.EnableCommandSorting = false
	root := &cobra.Command{
		Use:                        "sipalive",
		Short:                      "Keep the floating IPs of a PBX cluster alive",
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		Args:                       cobra.ArbitraryArgs, // RunE reports it in one line
		RunE:                       unknownCommand,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misuse(cmd, "%v", err) })
	root.AddCommand(
		newRunCommand(),
		newStatusCommand(),
		newMoveCommand(),
		newFailbackCommand(),
		newDrainCommand(),
		newUndrainCommand(),
		newFreezeCommand(),
		newThawCommand(),
		newRoleCommand(),
		newLockCommand(),
		newPlanCommand(),
		newEventsCommand(),
		newFlushCommand(),
		newAdoptCommand(),
		newReloadCommand(),
		newStopCommand(),
		newHooksCommand(),
		newPingCommand(),
		newProbeCommand(),
		newCheckCommand(),
		newDoctorCommand(),
		newKeygenCommand(),
		newKeyCommand(),
		newInitCommand(),
		newImportCommand(),
		newReferenceCommand(),
		newManualCommand(),
		newVersionCommand(),
		newDemoCommand(),
		newDemoPBXCommand(),
		newLockGuardCommand(),
	)
	root.SetHelpCommand(newHelpCommand())
	refuseBareCompletion(root)
	markRuns(root)
	return root
}

// unknownCommand runs if the arguments name no subcommand.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return misuse(cmd, "needs a command")
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return misuse(cmd, "unknown command %q, did you mean %s?", args[0], strings.Join(like, " or "))
	}
	return misuse(cmd, "unknown command %q", args[0])
}

// newHelpCommand is like cobra's, but an unknown topic is an error.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return misuse(cmd, "unknown command %q", strings.Join(args, " "))
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}

// refuseBareCompletion makes `completion` without a shell, or with one that cobra does
// not know, a misuse like every other.
func refuseBareCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd("completion")
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = cobra.ArbitraryArgs
			c.RunE = func(cmd *cobra.Command, _ []string) error { return misuse(cmd, "needs bash, zsh, fish or powershell") }
		}
	}
}
