package main

import (
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"sipalive/config"
)

// defaultKeyFile is the path of the key unless a command says otherwise.
const defaultKeyFile = "/etc/sipalive/key"

func newKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "keygen",
		Short:   "Print a new key for key_file",
		Long:    `Print a new key, one line. Every node of a cluster has the same key file, mode 0600.`,
		Example: `  (umask 077; sipalive keygen > /etc/sipalive/key)`,
		Args:    arguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := config.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
}
