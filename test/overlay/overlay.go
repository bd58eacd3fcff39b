// Package overlay gives programs under test a copy of this machine's file system that
// they may change. No change stays.
package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Root is this machine's file system seen through an overlay. What a program changes in
// it is only in changed, and is gone when the test ends.
type Root struct {
	Path    string // its /, seen from outside
	changed string
}

// New mounts a Root. The mounts are in a mount namespace of the calling thread, so the
// caller must have locked its goroutine to that thread.
func New(t *testing.T) *Root {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Fatalf("a mount namespace of our own: %v (run the tests as root)", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sipalive-overlay-")
	if err != nil {
		t.Fatal(err)
	}
	// Unmount first, and never use RemoveAll: what is mounted here is not ours.
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	mount := func(source, target, kind string, flags uintptr, data string) {
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			t.Fatalf("mount %s on %s: %v", kind, target, err)
		}
	}
	mount("tmpfs", dir, "tmpfs", 0, "")
	r := &Root{Path: filepath.Join(dir, "root"), changed: filepath.Join(dir, "changed")}
	for _, d := range []string{r.changed, dir + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount("overlay", r.Path, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s/work", r.changed, dir))
	// Not the machine's /run: systemd's directories in it decide what the scripts do.
	mount("tmpfs", r.Path+"/run", "tmpfs", 0, "")
	mount("proc", r.Path+"/proc", "proc", 0, "")
	// Nor its /dev: nothing here may reach the machine's devices.
	mount("tmpfs", r.Path+"/dev", "tmpfs", 0, "")
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9} {
		if err := unix.Mknod(r.Path+"/dev/"+name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/proc/self/fd", r.Path+"/dev/fd"); err != nil {
		t.Fatal(err)
	}
	return r
}

// Try runs a command in the root, with the calling thread's network.
func (r *Root) Try(args ...string) (string, error) {
	cmd := exec.Command("/usr/bin/env", append([]string{"-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "TERM=dumb"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.Path}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Run is Try for commands that must succeed.
func (r *Root) Run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.Try(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Write writes a file in the root and makes its directories.
func (r *Root) Write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	path = r.Path + path
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

// Exists reports whether a path is in the root.
func (r *Root) Exists(path string) bool {
	_, err := os.Lstat(r.Path + path)
	return err == nil
}

// Left returns the files and directories that are in the root and not on the machine, and
// what was deleted there, without the package manager's own files.
func (r *Root) Left(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(r.changed, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, r.changed)
		switch {
		case strings.HasPrefix(name, "/var/lib/dpkg"), strings.HasPrefix(name, "/var/log"), strings.HasPrefix(name, "/var/cache/man"):
			return nil
		case d.Type()&fs.ModeCharDevice != 0: // the overlay's mark for a deleted file
			paths = append(paths, "deleted: "+name)
		default:
			if _, err := os.Lstat("/" + name); err != nil {
				paths = append(paths, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
