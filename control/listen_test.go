package control

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// leaveSocket leaves a socket behind, as a killed agent does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestListenReplacesADeadAgentsSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	leaveSocket(t, path)
	leaveSocket(t, path+".new") // killed between the two steps of Listen
	stop := serve(t, NewServer(steady(), NewJournal(1)), dir)
	if _, err := NewClient(dir).Status(ctxFor(t)); err != nil {
		t.Errorf("after the dead agent's socket was replaced: %v", err)
	}
	stop()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("after the end the directory holds %v (%v)", left, err)
	}
}

func TestListenRefuses(t *testing.T) {
	_, _, live := start(t, steady())
	file := t.TempDir()
	if err := os.WriteFile(filepath.Join(file, SocketName), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := t.TempDir()
	if err := os.Symlink(filepath.Join(live, SocketName), filepath.Join(link, SocketName)); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	for dir, want := range map[string]string{
		live:    "another agent answers there (sipalive stop, or choose another --run-dir)",
		file:    "a file that is not a socket is in the way (remove it, or choose another --run-dir)",
		link:    "a file that is not a socket is in the way (remove it, or choose another --run-dir)",
		missing: "no such file or directory (the directory has to exist and be writable for the agent)",
		long:    "path longer than a unix socket's may be (choose a shorter --run-dir)",
	} {
		l, _, err := Listen(dir, "")
		if err == nil {
			l.Close()
		}
		if err == nil || err.Error() != "listen on "+filepath.Join(dir, SocketName)+": "+want {
			t.Errorf("Listen: %v\nwant ...: %s", err, want)
		}
	}
	if _, err := NewClient(live).Status(ctxFor(t)); err != nil {
		t.Errorf("the live agent after another one tried its socket: %v", err)
	}
	if kept, err := os.ReadFile(filepath.Join(file, SocketName)); err != nil || string(kept) != "precious" {
		t.Errorf("the file in the way: %q, %v", kept, err)
	}
}

func TestListenAccess(t *testing.T) {
	gid, err := lookup("daemon") // in the /etc/group of every Debian
	if err != nil || gid == os.Getgid() {
		t.Fatalf("group daemon: gid %d, %v", gid, err)
	}
	for group, want := range map[string]struct {
		mode    fs.FileMode
		gid     int
		warning string
	}{
		"":             {0o600, os.Getgid(), ""},
		"daemon":       {0o660, gid, ""},
		"sipa-no-such": {0o600, os.Getgid(), ": no such group; only its owner may use it (groupadd --system sipa-no-such, or set group in [control])"},
	} {
		dir := t.TempDir()
		l, warning, err := Listen(dir, group)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, SocketName)
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != want.mode|fs.ModeSocket {
			t.Errorf("group %q: mode %v, want %v", group, got, want.mode)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Gid); got != want.gid {
			t.Errorf("group %q: gid %d, want %d", group, got, want.gid)
		}
		if want.warning != "" {
			want.warning = "open " + path + " to group " + group + want.warning
		}
		if warning != want.warning {
			t.Errorf("group %q warns %q, want %q", group, warning, want.warning)
		}
		l.Close()
	}
}

// The socket is its owner's alone from the first moment, whatever the umask is.
func TestBindIsPrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "s")
	l, err := bind(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	l, _, err := Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // an operator removes it; then another agent starts
		t.Fatal(err)
	}
	other, _, err := Listen(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	leaveSocket(t, path+".new") // as a third agent does while it starts
	l.Close()
	for _, theirs := range []string{path, path + ".new"} {
		if _, err := os.Lstat(theirs); err != nil {
			t.Errorf("another agent's socket is gone: %v", err)
		}
	}
}
