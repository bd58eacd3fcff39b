package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sipalive/agent"
	"sipalive/config"
	"sipalive/control"
	"sipalive/elect"
	"sipalive/keyring"
	"sipalive/member"
	"sipalive/platform"
)

const (
	defaultStateDir = "/var/lib/sipalive"
	lockName        = "lock"
	fenceName       = "fence"
)

type runFlags struct {
	file, node, runDir, stateDir string
}

func newRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the agent on this node",
		Args:  arguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("state-dir") && cmd.Flags().Changed("run-dir") {
				f.stateDir = filepath.Join(f.runDir, "state")
			}
			return runAgent(cmd.Context(), f, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "configuration file, the same on every node")
	cmd.Flags().StringVar(&f.node, "node", "", "this node's name (default: the node whose address is on this machine)")
	cmd.Flags().StringVar(&f.runDir, "run-dir", defaultRunDir, "runtime directory, a tmpfs")
	cmd.Flags().StringVar(&f.stateDir, "state-dir", defaultStateDir, "state directory (default with --run-dir alone: RUN_DIR/state)")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// runAgent constructs everything, runs it, and hands over when it is asked to end.
func runAgent(ctx context.Context, f runFlags, stderr io.Writer) error {
	log := newLog(stderr)
	heard := hearSignals()
	defer heard.stop()
	file, err := loadFile(f)
	if err != nil {
		return err
	}
	c, self := file.Config, file.Self
	if missing := platform.MissingCapabilities("CAP_NET_ADMIN", "CAP_NET_RAW"); len(missing) > 0 {
		return fmt.Errorf("run %s: %s missing (run as root or from the systemd unit)", self.Name, strings.Join(missing, " and "))
	}
	dir, err := agent.OpenDirectory(f.runDir, f.stateDir)
	if err != nil {
		return err
	}
	unlock, err := platform.Lock(filepath.Join(f.runDir, lockName))
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }()

	if err := refuseSecond(self, c.Port); err != nil {
		return err
	}
	endRunaway(self.Name, stderr, log)
	parts := agent.Parts{Config: c, Self: self, Directory: dir, Log: log, Now: now, Journal: control.NewJournal(control.DefaultEvents), Version: version}
	parts.MemoryLocked = settleIn(self.Name, f.runDir, log)
	if parts.Relay, err = agent.RelayLink(c, self); err != nil {
		return err
	}
	closeHost, err := openHost(&parts, file, log)
	if err != nil {
		return err
	}
	defer closeHost()
	if err := openMachine(&parts); err != nil {
		return err
	}
	if err := openFence(&parts, log); err != nil {
		return err
	}
	left := false
	defer func() { closeFence(&parts, left, log) }()
	if err := sweep(&parts, log); err != nil {
		return err
	}
	parts.Keyring = file.Keys
	parts.Network = func(deliver func(elect.Received), onKeys func(elect.Node, keyring.Message), relay func(elect.Node, []byte) error) (*member.Network, error) {
		m := memberConfig(&parts, file.Keys, deliver)
		m.OnKeys, m.Relay = onKeys, relay
		return member.Start(m)
	}
	parts.Load = func() (agent.File, error) {
		file, err := loadFile(f)
		if err == nil {
			file.Relay, err = agent.RelayLink(file.Config, file.Self)
		}
		return file, err
	}
	listener, warning, err := control.Listen(f.runDir, c.Control.Group)
	if err != nil {
		return err
	}
	if warning != "" {
		log.Warn(warning, "node", self.Name)
	}
	parts.Listener = listener
	a := agent.New(parts)
	err = runUntilSignal(ctx, a, heard, log)
	left = a.Left()
	return err
}

// refuseSecond finds another agent on this node that has its own runtime directory. It
// runs before sweep would take away the addresses which that agent holds.
func refuseSecond(self *config.Node, port uint16) error {
	probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self.Address, port)))
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w (the address of %s is not on this machine, or not yet)", err, self.Name)
	case err != nil:
		return fmt.Errorf("%w (one agent per node: does another run here?)", err)
	}
	return probe.Close()
}

func now() elect.Instant { return elect.Instant(platform.BootNow()) }
