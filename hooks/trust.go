package hooks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may go through, as in the kernel
// (path_resolution(7)).
const maxLinks = 40

// checkTrusted refuses a program that somebody else could replace. The program, every
// directory on the way to it and every link in between must belong to root or to one of
// the owners, and nobody else but group 0 may write to them. In a directory with the
// sticky bit, such as /tmp, others may add files but cannot replace these.
func checkTrusted(path string, owners ...uint32) error {
	rest := strings.Split(filepath.Clean(path), "/")[1:]
	at := "/"
	if err := checkOwner(at, owners); err != nil {
		return err
	}
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		if err := checkOwner(next, owners); err != nil {
			return err
		}
		target, err := os.Readlink(next)
		if err != nil {
			at = next // no link
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s: too many symbolic links", oneLine(path))
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.FieldsFunc(target, func(r rune) bool { return r == '/' }), rest...)
	}
	return nil
}

func checkOwner(path string, owners []uint32) error {
	info, err := os.Lstat(path)
	if err != nil {
		return notThere(path, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no owner is known", oneLine(path))
	}
	if st.Uid != 0 && !slices.Contains(owners, st.Uid) {
		return fmt.Errorf("%s belongs to user %d, who could replace it (chown root, or give the action that user)", oneLine(path), st.Uid)
	}
	mode := info.Mode()
	switch {
	case mode&os.ModeSymlink != 0, mode.IsDir() && mode&os.ModeSticky != 0:
	case mode&0o002 != 0:
		return fmt.Errorf("%s may be written to by everybody (chmod o-w)", oneLine(path))
	case mode&0o020 != 0 && st.Gid != 0:
		return fmt.Errorf("%s may be written to by group %d (chmod g-w)", oneLine(path), st.Gid)
	}
	return nil
}

// notThere lets a missing or hidden program pass: the attempt to start it gives a better
// error.
func notThere(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	return fmt.Errorf("%s: %w", oneLine(path), err)
}
