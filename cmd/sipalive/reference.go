package main

import (
	"github.com/spf13/cobra"

	"sipalive/config"
)

func newReferenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "Print every configuration key with its default and meaning",
		Args:  arguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Reference())
			return err
		},
	}
}
