package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sipalive/control"
	"sipalive/platform"
)

// stopPatience is how long an agent that has handed over may take to end: its release
// actions may still run.
const stopPatience = time.Minute

func newStopCommand() *cobra.Command {
	cmd := newOrderCommand(control.Stop, "", "Hand everything over and end the agent",
		`Hand every VIP and role of this node over and end its agent. To restart or
upgrade an agent with nothing moved: systemctl restart, or send it SIGUSR2 and
start the new one.`,
		func([]string) control.Command { return control.Command{Kind: control.Stop} })
	systemd := cmd.Flags().Bool("systemd", false,
		"for the unit's ExecStop=: end process $MAINPID, in place if systemd restarts the unit, else handing over")
	order := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *systemd {
			return stopForSystemd(cmd.Context(), cmd.OutOrStdout())
		}
		if err := order(cmd, args); err != nil {
			return err
		}
		return awaitUnlocked(filepath.Join(cmd.Flag("run-dir").Value.String(), lockName))
	}
	return cmd
}

// awaitUnlocked returns once the agent's process is gone, so that a start right after it
// is not refused.
func awaitUnlocked(path string) error {
	for end := time.Now().Add(stopPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if locked, err := platform.Locked(path); err != nil || !locked {
			return err
		}
	}
	return fmt.Errorf("stop: the agent has handed over but not ended after %s (its actions may still run)", stopPatience)
}
