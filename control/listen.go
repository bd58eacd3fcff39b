package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// SocketName is the socket's name in the runtime directory.
const SocketName = "control.sock"

// maxPath is the longest path of a unix socket (struct sockaddr_un in
// unix(7): 108 bytes with the terminating zero).
const maxPath = 107

// Listen opens the control socket in runDir, which has to exist. Its owner and the
// members of group may use it (mode 0660). If the group cannot be given access, only the
// owner may (mode 0600), and warning says so in one line.
//
// Listen replaces the socket of a dead agent, but not that of an agent that answers. Two
// agents that start at the same moment are kept apart by the agent's lock file, not here.
// Closing the listener removes the socket.
func Listen(runDir, group string) (l net.Listener, warning string, err error) {
	path := filepath.Join(runDir, SocketName)
	if err := checkFree(path); err != nil {
		return nil, "", fmt.Errorf("listen on %s: %w", path, err)
	}
	// Bind beside the final name, then rename over it. So nobody connects to a socket
	// before its mode is final, and the name is never missing.
	fresh := path + ".new"
	if len(fresh) > maxPath {
		return nil, "", fmt.Errorf("listen on %s: path longer than a unix socket's may be (choose a shorter --run-dir)", path)
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("listen on %s: %w (remove it)", path, cause(err))
	}
	ul, err := bind(fresh)
	if err != nil {
		return nil, "", fmt.Errorf("listen on %s: %w (the directory has to exist and be writable for the agent)", path, cause(err))
	}
	warning = allow(fresh, path, group)
	own, err := os.Lstat(fresh)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		ul.Close()
		os.Remove(fresh)
		return nil, "", fmt.Errorf("listen on %s: %w", path, cause(err))
	}
	return &listener{Listener: ul, path: path, own: own}, warning, nil
}

// bind listens on a socket that only the owner can use from its first moment: Linux gives
// the new file the mode of the socket's own inode (unix_bind_bsd in net/unix/af_unix.c).
func bind(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		if err := c.Control(func(fd uintptr) { modeErr = syscall.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return modeErr
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false) // it would remove the name the socket was bound to
	return ul, nil
}

// checkFree returns an error if an agent answers at path, or if path is not a socket.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cause(err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is not a socket is in the way (remove it, or choose another --run-dir)")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil // its agent is dead
	}
	return errors.New("another agent answers there (sipalive stop, or choose another --run-dir)")
}

// allow gives the group access to the socket; the warning is one line.
func allow(file, path, group string) (warning string) {
	if group == "" {
		return ""
	}
	gid, err := lookup(group)
	if err == nil {
		err = os.Chown(file, -1, gid)
	}
	if err == nil {
		err = os.Chmod(file, 0o660)
	}
	if err != nil {
		return fmt.Sprintf("open %s to group %s: %v; only its owner may use it (groupadd --system %s, or set group in [control])",
			path, group, cause(err), group)
	}
	return ""
}

func lookup(group string) (int, error) {
	g, err := user.LookupGroup(group)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		return 0, errors.New("no such group")
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// cause returns the kernel's error without the layers around it, which repeat the
// operation and the path.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// listener removes the socket on Close if the file is still its own.
type listener struct {
	net.Listener
	path string
	own  fs.FileInfo
	once sync.Once
}

func (l *listener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.own) {
			os.Remove(l.path)
		}
	})
	return l.Listener.Close()
}
