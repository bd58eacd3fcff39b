package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"sipalive/hooks"
	"sipalive/platform"
)

// The hooks service listens in a directory of its own, beside the agent's runtime
// directory, because each of the two units owns its directory.
const (
	hooksDirSuffix = "-hooks"
	hooksSocket    = "hooks.sock"
)

// hooksService returns the socket of the service that belongs to an agent's runtime
// directory.
func hooksService(runDir string) string {
	return filepath.Join(filepath.Clean(runDir)+hooksDirSuffix, hooksSocket)
}

func newHooksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hooks",
		Short: "Run exec actions for the agent: sipalive-hooks.service",
		Long: `Run the exec actions of the agent on this machine, so that the agent's own unit
needs no right that only a script has. Only root and the user of the agent are
served, on a private socket. Where this does not run, the agent runs its actions
itself, with what its unit allows.`,
		Args:                  arguments(""),
		DisableFlagsInUseLine: true,
	}
	runDir := cmd.Flags().String("run-dir", defaultRunDir, "runtime directory of the agent; the socket is in the one beside it, with -hooks")
	name := cmd.Flags().String("user", "root", "the user that the agent runs as")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return serveHooks(ctx, hooksService(*runDir), *name)
	}
	return cmd
}

func serveHooks(ctx context.Context, socket, agent string) error {
	u, err := user.Lookup(agent)
	if err != nil {
		return fmt.Errorf("hooks --user %s: no such user on this node", agent)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("hooks --user %s: id %q is not a number", agent, u.Uid)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	unlock, err := platform.Lock(filepath.Join(filepath.Dir(socket), lockName))
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }()
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // left by a service that was killed: the lock shows that nobody listens
	}
	l, err := listenFor(socket, int(uid))
	if err != nil {
		return err
	}
	_ = platform.NotifySystemd("READY=1")
	return hooks.Serve(ctx, l, uint32(uid))
}

// listenFor opens a socket to which only that user may connect.
func listenFor(socket string, uid int) (*net.UnixListener, error) {
	old := syscall.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if uid != os.Geteuid() {
		err = os.Chown(socket, uid, -1)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
