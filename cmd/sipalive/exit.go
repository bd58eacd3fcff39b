package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sipalive/control"
)

// The exit codes of every command (docs/design.md §8).
const (
	exitDone    = 0 // yes, or done
	exitNo      = 1 // no, or failed
	exitUsage   = 2
	exitNoAgent = 3 // no agent answers
	// exitStopped is the exit code of an agent that `sipalive stop` ended: the unit does
	// not start it again (RestartPreventExitStatus=).
	exitStopped = 10
)

// errStopped ends an agent that an operator stopped. It is not a failure.
var errStopped = errors.New("stopped")

// errNo is the answer "no" to a question: nothing is printed.
var errNo = errors.New("no")

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// misuse returns a usageError of cmd, with a hint where to read on.
func misuse(cmd *cobra.Command, format string, args ...any) error {
	return usageError{fmt.Sprintf("%s: %s (%[1]s --help)", cmd.CommandPath(), fmt.Sprintf(format, args...))}
}

// ranError is the error of a command that ran. cobra's own errors have types that it does
// not export, and are not of this type.
type ranError struct{ error }

func (e ranError) Unwrap() error { return e.error }

// markRuns makes the errors of cmd and of all its subcommands tell whether they ran.
func markRuns(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		markRuns(sub)
	}
	run := cmd.RunE
	if run == nil {
		return
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := run(cmd, args); err != nil {
			return ranError{err}
		}
		return nil
	}
}

// asMisuse turns an error of cobra, which refused the command line before cmd ran, into a
// misuse.
func asMisuse(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if ran, is := errors.AsType[ranError](err); is {
		return ran.error
	}
	if _, known := errors.AsType[usageError](err); known {
		return err
	}
	return misuse(cmd, "%v", err)
}

func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if err == errStopped {
		return exitStopped
	}
	if e, own := errors.AsType[exitError](err); own {
		return e.code
	}
	if _, wrong := errors.AsType[usageError](err); wrong {
		return exitUsage
	}
	if _, none := errors.AsType[*control.NoAgent](err); none {
		return exitNoAgent
	}
	return exitNo
}

// errorLine returns the text for stderr: one line, or nothing.
func errorLine(err error) string {
	if err == nil || err == errNo || err == errStopped {
		return ""
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// arguments checks the number of arguments of a command, by a form such as "VIP NODE" or
// "[NODE]".
func arguments(form string) cobra.PositionalArgs {
	words := strings.Fields(form)
	least := len(words)
	if strings.HasPrefix(form, "[") {
		least = 0
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > len(words) {
			if form == "" {
				return misuse(cmd, "takes no arguments, got %q", strings.Join(args, " "))
			}
			return misuse(cmd, "takes %s, got %d", form, len(args))
		}
		for i, arg := range args {
			if arg == "" {
				return misuse(cmd, "%s is empty", strings.Trim(words[i], "[]"))
			}
		}
		return nil
	}
}
