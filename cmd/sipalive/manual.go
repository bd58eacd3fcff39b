package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sipalive/config"
	"sipalive/control"
)

// The manual pages are made from the program's own help texts, so they cannot differ from
// it.
var manualPages = []string{"sipalive.8", "sipalive.toml.5"}

func newManualCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "manual [PAGE]",
		Short: "Print a manual page: sipalive.8 or sipalive.toml.5",
		Long: `Print a manual page, sipalive.8 unless sipalive.toml.5 is asked for, in the
language of man(1).`,
		Example: `  sipalive manual | man -l -`,
		Args:    arguments("[PAGE]"),
		// Otherwise its own usage line would differ from that of the other commands:
		// cobra adds a help flag to the command that runs.
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			page := append(args, manualPages[0])[0]
			var r roff
			switch page {
			case manualPages[0]:
				r.commands(cmd.Root())
			case manualPages[1]:
				r.file(string(config.Reference()))
			default:
				return misuse(cmd, "no page %q, one of %s", page, strings.Join(manualPages, ", "))
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), r.text())
			return err
		},
	}
}

const manualIntroduction = `sipalive keeps the floating IPs of a PBX cluster alive. Every node runs one
agent. The agents watch each other with SIP OPTIONS and encrypted heartbeats, decide
by quorum lease which node holds which floating IP, bind it, announce it, and run the
takeover actions.

The agent is run by sipalive.service. Every other command asks the agent of this
machine, which answers for the cluster.`

// manualFiles are the paths that the package and the unit use.
var manualFiles = [][2]string{
	{"/etc/sipalive/sipalive.toml", "The configuration, the same on every node: sipalive.toml(5)."},
	{defaultKeyFile, "The key of the heartbeats, mode 0600, the same on every node; sipalive key rotate writes it."},
	{defaultRunDir, "Votes and leases, on a tmpfs: they outlive the agent, not the boot."},
	{defaultRunDir + "/" + control.SocketName, "Where the commands reach the agent: root and the group sipalive."},
	{defaultStateDir, "What has to outlive the boot: epochs, the active voter list, drains."},
}

// commands writes sipalive(8).
func (r *roff) commands(root *cobra.Command) {
	r.head("SIPALIVE", 8)
	r.section("NAME")
	r.line("sipalive - keep the floating IPs of a PBX cluster alive")
	r.section("SYNOPSIS")
	r.macro("B", "sipalive")
	r.macro("I", "COMMAND")
	r.line("[options]")
	r.section("DESCRIPTION")
	r.prose(manualIntroduction)
	r.section("COMMANDS")
	for _, c := range allCommands(root) {
		r.command(c)
	}
	r.section("FILES")
	for _, f := range manualFiles {
		r.tagged(f[0], "", f[1])
	}
	r.section("EXIT STATUS")
	for _, e := range [][2]string{{"0", "Yes, or done."}, {"1", "No, or failed."}, {"2", "A command line that cannot be meant."},
		{"3", "No agent answers."}, {"10", "The agent, ended by an operator's word."}} {
		r.tagged(e[0], "", e[1])
	}
	r.section("SEE ALSO")
	r.line("sipalive.toml(5), systemctl(1), https://www.rfc-editor.org/rfc/rfc3261")
}

// allCommands returns the commands that people use, in the order of the help.
func allCommands(parent *cobra.Command) (out []*cobra.Command) {
	for _, c := range parent.Commands() {
		if c.Hidden {
			continue
		}
		if c.Runnable() && (!c.HasSubCommands() || c.HasLocalFlags()) {
			out = append(out, c)
		}
		out = append(out, allCommands(c)...)
	}
	return out
}

func (r *roff) command(c *cobra.Command) {
	r.subsection(c.UseLine())
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	r.prose(text)
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" {
			r.tagged(flagForm(f), "", flagText(f))
		}
	})
	if c.Example != "" {
		r.verbatim(c.Example)
	}
}

// flagForm returns such as "-c, --config string".
func flagForm(f *pflag.Flag) string {
	form := "--" + f.Name
	if f.Shorthand != "" {
		form = "-" + f.Shorthand + ", " + form
	}
	if name, _ := pflag.UnquoteUsage(f); name != "" {
		form += " " + name
	}
	return form
}

func flagText(f *pflag.Flag) string {
	_, text := pflag.UnquoteUsage(f)
	if text == "" {
		return ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if !slices.Contains([]string{"", "false", "0", "0s", "[]"}, f.DefValue) && !strings.Contains(text, "default") {
		text += fmt.Sprintf(" (default %s)", f.DefValue)
	}
	return strings.TrimSuffix(text, ".") + "."
}
