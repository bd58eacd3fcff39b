package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"sipalive/keyring"
)

// rotating is for people who find the file in the middle of a rotation.
const rotating = "# sipalive key rotate has not ended: the first key seals, all open. Run it again to finish it."

// StoreKeyring replaces the key file in one step, with its former owner and mode. It
// returns once the new file is on disk: after a power cut either the old or the new ring
// is there. The file has to hold the ring was; keys that an operator has put there and no
// agent has read yet are not overwritten.
func StoreKeyring(path string, was, ring keyring.Ring) error {
	if err := sameKeyring(path, was); err != nil {
		return err
	}
	tmp, real, err := besideKeyFile(path, formatKeyring(ring))
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, real); err != nil {
		_ = os.Remove(tmp)
		return &Error{File: path, Text: fmt.Sprintf("cannot be replaced: %v", cause(err))}
	}
	d, err := os.Open(filepath.Dir(real))
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return &Error{File: path, Text: fmt.Sprintf("may not be on disk yet: %v", cause(err))}
	}
	return nil
}

// TryKeyring reports whether StoreKeyring would work, by doing all of it except the last
// step.
func TryKeyring(path string, was keyring.Ring) error {
	if err := sameKeyring(path, was); err != nil {
		return err
	}
	tmp, _, err := besideKeyFile(path, formatKeyring(was))
	if err != nil {
		return err
	}
	if err := os.Remove(tmp); err != nil {
		return &Error{File: tmp, Text: fmt.Sprintf("cannot be removed: %v", cause(err))}
	}
	return nil
}

func sameKeyring(path string, was keyring.Ring) error {
	now, err := LoadKeyring(path)
	if err == nil && !now.Equal(was) {
		err = &Error{File: path, Text: "has other keys than the running agent; sipalive reload, or put the old file back"}
	}
	return err
}

// besideKeyFile writes the new key file beside the old one. If path is a symbolic link,
// that is beside the link's target.
func besideKeyFile(path, text string) (tmp, real string, err error) {
	fail := func(err error) (string, string, error) {
		return "", "", &Error{File: path, Text: fmt.Sprintf("cannot be written: %v (the agent needs to write in its directory: the unit's ReadWritePaths=)", cause(err))}
	}
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return fail(err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return fail(err)
	}
	tmp = filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+".rotating")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(fillKeyFile(f, info, text), f.Close()); err != nil {
		_ = os.Remove(tmp)
		return fail(err)
	}
	return tmp, real, nil
}

func fillKeyFile(f *os.File, like os.FileInfo, text string) error {
	if own, is := like.Sys().(*syscall.Stat_t); is {
		if int(own.Uid) != os.Geteuid() {
			if err := f.Chown(int(own.Uid), -1); err != nil {
				return err
			}
		}
		if int(own.Gid) != os.Getegid() {
			_ = f.Chown(-1, int(own.Gid)) // the group's mode bits are 0, and the unit may not allow it
		}
	}
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}

// formatKeyring returns the key file of a ring. LoadKeyring and older agents can read it.
func formatKeyring(ring keyring.Ring) string {
	var b strings.Builder
	if len(ring) > 1 {
		b.WriteString(rotating + "\n")
	}
	for _, k := range ring {
		b.WriteString(base64.StdEncoding.EncodeToString(k) + "\n")
	}
	return b.String()
}
