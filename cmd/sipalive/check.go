package main

import (
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/platform"
)

func newCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "check -c FILE",
		Short:                 "Check a configuration file",
		Long:                  `Check a configuration file, and that this machine has the interfaces it names.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	file := cmd.Flags().StringP("config", "c", "", "the configuration file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *file == "" {
			return misuse(cmd, "needs -c FILE")
		}
		cfg, err := config.Load(*file)
		if err != nil {
			return err
		}
		if err := agent.CheckActions(cfg); err != nil {
			return err
		}
		if !onWitness(cfg) {
			if err := cfg.CheckInterfaces(interfaceExists); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: good: cluster %s, nodes: %d, VIPs: %d, roles: %d\n",
			*file, cfg.Cluster, len(cfg.Nodes), len(cfg.VIPs), len(cfg.Roles))
		return err
	}
	return cmd
}

// onWitness reports whether this machine is a node that binds nothing, and so needs no
// VIP's interface.
func onWitness(c *config.Config) bool {
	local, err := platform.LocalAddresses()
	if err != nil {
		return false
	}
	self, err := c.Self("", local)
	return err == nil && !self.Holder
}

func interfaceExists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}
