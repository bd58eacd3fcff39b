package main

import (
	"github.com/spf13/cobra"

	"sipalive/control"
)

func newAdoptCommand() *cobra.Command {
	return newOrderCommand(control.Adopt, "", "Take the file's voter list now",
		`Take the voter list of this node's file at once: your word that no other list is
in use any more. Wrong, it can make two holders. Without it an agent waits until
the other nodes agree (status says for whom), one node more or less at a time.`,
		func([]string) control.Command { return control.Command{Kind: control.Adopt} })
}
